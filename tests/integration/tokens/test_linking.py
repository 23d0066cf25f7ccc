from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from tests.factories import make_user
from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.sandbox import SandboxAdmin
from tests.support.scripted import answer
from tests.support.waiting import wait_for
from worker.crud import links
from worker.crud.refresh import reauth
from worker.errors import Fenced, NotFound, OutcomeUnknown, Refused, Transient, Unavailable
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.link_kinds import FILE, KEY_AND_SECRET, KEY_FILE, OAUTH_PKCE, PUBLIC_TOKEN, LinkKind
from worker.runtime import Runtime
from worker.services.linking import begin, complete, end, pkce
from worker.services.refresh import journal, lease, protocol
from worker.services.refresh.access_token import access_token
from worker.services.refresh.plan import seal_answer
from worker.services.refresh.results import Outcome


def _user(runtime: Runtime) -> UUID:
    with runtime.transaction() as session:
        return make_user(session).id


def _state(url: str) -> str:
    return parse_qs(urlsplit(url).query)["state"][0]


@dataclass(frozen=True)
class _Begun:
    """A link that a user has begun: the URL that they are sent back to, and what they keep."""

    callback: str
    holder: str

    async def complete(self, desk: Desk) -> UUID:
        return await complete.complete_link(desk.runtime, self.callback, holder=self.holder)


def _begin(desk: Desk, user: UUID, alias: str = "Main") -> _Begun:
    begun = desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, alias))
    callback = f"https://127.0.0.1?code=C0.abc%2Bd%40&session=s-1&state={_state(begun.url)}"
    return _Begun(callback, begun.holder)


def _linked_and_begun_again(desk: Desk) -> tuple[UUID, _Begun]:
    """A linked provider, and another link of the same login under way."""
    user = _user(desk.runtime)
    return _link(desk, user), _begin(desk, user)


def _linked_and_refreshed(desk: Desk) -> tuple[UUID, UUID, int]:
    """User, provider, and the generation of its token."""
    user = _user(desk.runtime)
    id_ = _link(desk, user)
    desk.refresh(id_, force=True)
    return user, id_, desk.token(id_)["generation"]


def _link(desk: Desk, user: UUID, alias: str = "Main") -> UUID:
    return desk.runtime.run(_begin(desk, user, alias).complete(desk))


@pytest.mark.deep
def test_linked_schwab_login_can_be_refreshed(runtime: Runtime, sandbox: SandboxAdmin) -> None:
    login = sandbox.create_logins("schwab", 1)[0]
    begun = runtime.run(begin.begin_link(runtime, "schwab", _user(runtime), "Main"))

    callback = sandbox.link(login, state=_state(begun.url))["callback_url"]
    provider_id = runtime.run(complete.complete_link(runtime, callback, holder=begun.holder))
    summary = runtime.run(protocol.refresh_providers(runtime, [provider_id], force=True))

    assert "%40" in callback
    assert "session=" in callback
    assert summary.counts == {"refreshed": 1}


@pytest.mark.deep
def test_linked_plaid_item_has_a_token_that_is_never_refreshed(runtime: Runtime, sandbox: SandboxAdmin) -> None:
    login = sandbox.create_logins("plaid", 1)[0]
    public_token = sandbox.link(login)["public_token"]

    provider_id = runtime.run(
        complete.link_with_form(runtime, "plaid", _user(runtime), "Bank", {"public_token": f"{public_token}\n"})
    )

    token = runtime.run(access_token(runtime, provider_id, caller=Caller()))
    summary = runtime.run(protocol.refresh_providers(runtime, [provider_id], force=True))
    assert token.expires_at is None
    assert summary.counts == {"unsupported": 1}


@pytest.mark.deep
def test_code_is_decoded_once_and_the_provider_is_active_and_due(desk: Desk) -> None:
    desk.schwab.script = [answer(1, grant_expires_at=datetime.now(UTC) + timedelta(days=7))]

    id_ = _link(desk, _user(desk.runtime))

    provider = desk.provider(id_)
    assert desk.schwab.exchanged == ["C0.abc+d@"]
    assert provider["status"] == "active"
    assert provider["sync_due_at"] <= datetime.now(UTC)
    # Spread over the second half of the eighteen minutes before a half-hour token's margin of twelve.
    left = provider["access_expires_at"] - provider["refresh_due_at"]
    assert timedelta(minutes=12) <= left <= timedelta(minutes=21)
    assert timedelta(days=6) < provider["grant_expires_at"] - datetime.now(UTC)
    assert desk.token(id_)["generation"] == 1
    assert desk.audit(id_) == ["linked"]


@pytest.mark.deep
def test_state_is_good_for_one_use(desk: Desk) -> None:
    begun = _begin(desk, _user(desk.runtime))
    desk.runtime.run(begun.complete(desk))

    with pytest.raises(Refused, match="used before"):
        desk.runtime.run(begun.complete(desk))
    assert len(desk.schwab.exchanged) == 1


def test_expired_state_is_refused(desk: Desk) -> None:
    begun = _begin(desk, _user(desk.runtime))
    desk.rows("UPDATE link_states SET expires_at = now() - interval '1 s'")

    with pytest.raises(Refused):
        desk.runtime.run(begun.complete(desk))
    assert desk.schwab.exchanged == []


@pytest.mark.deep
@pytest.mark.parametrize(
    "callback",
    [
        "https://127.0.0.1?code=c&state=forged",
        "https://127.0.0.1?code=c",
        "not a url",
        "https://127.0.0.1?error=access_denied&state=forged",
    ],
)
def test_callback_that_was_not_begun_here_is_refused(desk: Desk, callback: str) -> None:
    with pytest.raises(Refused):
        desk.runtime.run(complete.complete_link(desk.runtime, callback, holder="holder"))
    assert desk.schwab.exchanged == []


@pytest.mark.deep
@pytest.mark.parametrize("holder", ["", "somebody-else"])
def test_link_that_somebody_else_began_is_refused_and_stays_good_for_who_began_it(desk: Desk, holder: str) -> None:
    begun = _begin(desk, _user(desk.runtime))

    with pytest.raises(Refused, match="not begun here"):
        desk.runtime.run(replace(begun, holder=holder).complete(desk))
    assert desk.schwab.exchanged == []
    assert desk.provider(desk.runtime.run(begun.complete(desk)))["status"] == "active"


@pytest.mark.deep
def test_link_that_nobody_is_known_to_have_begun_is_refused(desk: Desk) -> None:
    begun = _begin(desk, _user(desk.runtime))
    desk.rows("UPDATE link_states SET holder_hash = NULL")  # as a worker of an older release leaves it

    with pytest.raises(Refused, match="not begun here"):
        desk.runtime.run(begun.complete(desk))


@pytest.mark.deep
def test_state_itself_is_never_stored(desk: Desk) -> None:
    begun = _begin(desk, _user(desk.runtime))

    rows = desk.rows("SELECT encode(state_hash || holder_hash, 'escape') AS stored FROM link_states")

    assert len(rows) == 1
    assert _state(begun.callback) not in rows[0]["stored"]
    assert begun.holder not in rows[0]["stored"]


def test_callback_to_another_place_is_refused(desk: Desk) -> None:
    begun = _begin(desk, _user(desk.runtime))
    elsewhere = replace(begun, callback=begun.callback.replace("127.0.0.1", "elsewhere.example"))

    with pytest.raises(Refused):
        desk.runtime.run(elsewhere.complete(desk))
    assert desk.schwab.exchanged == []


@pytest.mark.deep
def test_relink_is_the_next_generation_of_the_same_provider(desk: Desk) -> None:
    user = _user(desk.runtime)
    first = _link(desk, user)
    desk.rows(
        "UPDATE providers SET status = 'needs_reauth', status_reason = 'invalid_grant', refresh_failures = 4,"
        " sync_failures = 2, refresh_due_at = NULL"
    )
    desk.schwab.script = [answer(5, grant_expires_at=datetime.now(UTC) + timedelta(days=7))]

    second = _link(desk, user)

    provider = desk.provider(first)
    assert second == first
    assert (provider["status"], provider["status_reason"]) == ("active", None)
    assert (provider["refresh_failures"], provider["sync_failures"]) == (0, 0)
    assert provider["refresh_due_at"] is not None
    assert desk.token(first)["generation"] == 2
    assert desk.plain(first, "refresh") == "refresh-5"
    assert desk.audit(first) == ["linked", "linked"]


@pytest.mark.deep
def test_refresh_of_the_old_grant_cannot_overwrite_a_relink(desk: Desk) -> None:
    id_, begun = _linked_and_begun_again(desk)

    async def relink_meanwhile(token: str) -> Any:
        desk.schwab.script = [answer(50)]
        await begun.complete(desk)
        return answer(9)

    desk.schwab.script = [relink_meanwhile]

    outcomes = desk.refresh(id_, force=True)

    assert outcomes == {id_: Outcome.JOURNALED}
    assert desk.plain(id_, "refresh") == "refresh-50"
    assert desk.token(id_)["generation"] == 2


@pytest.mark.deep
def test_refresh_that_ends_during_a_relink_does_not_cost_the_new_grant(desk: Desk) -> None:
    id_, begun = _linked_and_begun_again(desk)

    async def refresh_meanwhile(code: str) -> Any:
        desk.schwab.script = [answer(9)]
        await protocol.refresh_providers(desk.runtime, [id_], force=True)
        return answer(50)

    desk.schwab.script = [refresh_meanwhile]

    desk.runtime.run(begun.complete(desk))

    assert desk.plain(id_, "refresh") == "refresh-50"
    assert desk.token(id_)["generation"] == 3


@pytest.mark.deep
def test_same_login_under_another_alias_is_the_same_provider(desk: Desk) -> None:
    user = _user(desk.runtime)
    desk.schwab.script = [answer(1, external_id="item-1"), answer(2, external_id="item-1")]

    first, second = _link(desk, user, "One"), _link(desk, user, "Two")

    assert second == first
    assert [row["alias"] for row in desk.rows("SELECT alias FROM providers")] == ["One"]


@pytest.mark.deep
def test_other_login_under_the_same_alias_forgets_the_old_cursors(desk: Desk) -> None:
    user = _user(desk.runtime)
    desk.schwab.script = [answer(1, external_id="item-1"), answer(2, external_id="item-2")]
    id_ = _link(desk, user)
    desk.rows(
        "INSERT INTO sync_cursors (provider_id, feed, cursor, updated_at) VALUES (:id, 'transactions', 'c', now())",
        id=id_,
    )

    assert _link(desk, user) == id_
    assert desk.provider(id_)["external_id"] == "item-2"
    assert desk.rows("SELECT * FROM sync_cursors") == []


def test_login_of_another_user_is_refused_and_left_alone(desk: Desk) -> None:
    desk.schwab.script = [answer(1, external_id="item-1"), answer(2, external_id="item-1")]
    id_ = _link(desk, _user(desk.runtime))

    with pytest.raises(Refused, match="another user"):
        _link(desk, _user(desk.runtime))
    assert desk.plain(id_, "refresh") == "refresh-1"
    assert [row["id"] for row in desk.rows("SELECT id FROM providers")] == [id_]
    # Plaid answers with the token of the Item that is in use: to end it would end the other user's link.
    assert desk.schwab.revoked == []


def _link_whose_user_goes(desk: Desk) -> None:
    user = _user(desk.runtime)

    def exchange(_: str) -> TokenAnswer:
        desk.rows("DELETE FROM users WHERE id = :id", id=user)
        return answer(3, external_id="item-3")

    desk.schwab.script = [exchange]
    _link(desk, user)


@pytest.mark.deep
def test_grant_that_nobody_can_have_any_more_is_ended_at_the_provider(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no user"):
        _link_whose_user_goes(desk)

    assert desk.schwab.revoked == [("access-3", "refresh-3")]
    assert desk.rows("SELECT 1 FROM providers") == []


def test_grant_without_a_login_id_is_ended_although_other_providers_have_none_either(desk: Desk) -> None:
    desk.link(alias="Other")
    user = _user(desk.runtime)

    def exchange(_: str) -> TokenAnswer:
        desk.rows("DELETE FROM users WHERE id = :id", id=user)
        return answer(3)

    desk.schwab.script = [exchange]
    with pytest.raises(NotFound, match="no user"):
        _link(desk, user)

    assert desk.schwab.revoked == [("access-3", "refresh-3")]


@pytest.mark.deep
def test_failed_revocation_does_not_hide_why_a_link_was_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> bool:
        raise Transient("http_503")

    monkeypatch.setattr(desk.schwab, "revoke", refuse)

    with pytest.raises(NotFound, match="no user"):
        _link_whose_user_goes(desk)


def test_grant_is_left_alone_while_nobody_can_say_whether_it_is_in_use(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> bool:
        raise Unavailable("Postgres: OperationalError")

    monkeypatch.setattr(links, "abandon", away)

    with pytest.raises(NotFound, match="no user"):
        _link_whose_user_goes(desk)
    assert desk.schwab.revoked == []


def _at_once(desk: Desk, *begun: _Begun) -> list[UUID | BaseException]:
    """Completes links so that none has been committed when the next one reads."""

    async def complete() -> list[UUID | BaseException]:
        linking = (one.complete(desk) for one in begun)
        return await asyncio.gather(*linking, return_exceptions=True)

    return desk.runtime.run(complete())


def _waits(desk: Desk) -> bool:
    return bool(
        desk.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    )


@pytest.fixture
def _held_store(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first grant is not stored before a second one is about to be, or waits for it."""
    begun = 0
    store_grant = links.store_grant

    def hold(*args: Any, **kwargs: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            wait_for(lambda: begun == 2 or _waits(desk), what="the second link")
        store_grant(*args, **kwargs)

    monkeypatch.setattr(links, "store_grant", hold)


@pytest.mark.deep
@pytest.mark.usefixtures("_held_store")
@pytest.mark.parametrize("external_id", ["item-1", None], ids=["named", "unnamed"])
@pytest.mark.parametrize("aliases", [("Main", "Main"), ("One", "Two")], ids=["same_alias", "two_aliases"])
def test_two_first_links_of_one_login_at_once_make_one_provider(
    desk: Desk, external_id: str | None, aliases: tuple[str, str]
) -> None:
    user = _user(desk.runtime)
    begun = [_begin(desk, user, alias) for alias in aliases]
    desk.schwab.script = [answer(1, external_id=external_id), answer(2, external_id=external_id)]

    first, second = _at_once(desk, *begun)

    providers = desk.rows("SELECT id, status FROM providers")
    assert {row["status"] for row in providers} == {"active"}
    assert {first, second} == {row["id"] for row in providers}
    # Who cannot tell by the login's own id that two aliases are one login keeps two.
    assert len(providers) == (2 if external_id is None and aliases == ("One", "Two") else 1)
    assert desk.schwab.revoked == []


@pytest.mark.deep
def test_link_that_is_begun_while_another_makes_the_same_provider_waits_for_it(desk: Desk) -> None:
    user = _user(desk.runtime)
    begun = _begin(desk, user)
    with desk.engine.connect() as other, ThreadPoolExecutor(1) as thread:
        made = other.execute(
            text(
                "INSERT INTO providers (id, user_id, provider_key, alias, status)"
                " VALUES (gen_random_uuid(), :user, 'schwab', 'Main', 'pending') RETURNING id"
            ),
            {"user": user},
        ).scalar_one()
        linking = thread.submit(desk.runtime.run, begun.complete(desk))
        wait_for(lambda: _waits(desk), what="the link to wait")
        other.commit()

        assert linking.result() == made
    assert desk.provider(made)["status"] == "active"


@pytest.mark.deep
def test_link_whose_pending_provider_turned_out_to_be_another_makes_it_anew(desk: Desk) -> None:
    user = _user(desk.runtime)

    def forget(_: str) -> TokenAnswer:
        desk.rows("DELETE FROM providers")
        return answer(1)

    desk.schwab.script = [forget]

    id_ = _link(desk, user)

    assert desk.provider(id_)["status"] == "active"


def test_new_grant_goes_to_the_journal_when_postgres_hangs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    user = _user(desk.runtime)
    begun = _begin(desk, user)
    with desk.engine.connect() as other:

        def lock(_: str) -> TokenAnswer:
            other.execute(text("SET idle_in_transaction_session_timeout = '5s'"))  # it does not hang for ever
            other.execute(text("LOCK TABLE provider_tokens"))
            monkeypatch.setattr(lease, "STORE_SECONDS", 0.05)
            return answer(1)

        desk.schwab.script = [lock]

        with pytest.raises(Unavailable, match="journal"):
            desk.runtime.run(begun.complete(desk))
        assert len(desk.runtime.run(journal.entries(desk.runtime))) == 1
        other.rollback()
    id_ = desk.rows("SELECT id FROM providers")[0]["id"]
    # What hung was given up with its connection.
    assert desk.audit(id_) == []
    assert desk.runtime.run(journal.drain(desk.runtime)) == 1
    assert desk.audit(id_) == ["linked"]
    assert desk.runtime.run(journal.entries(desk.runtime)) == []
    assert desk.token(id_)["generation"] == 1
    assert desk.schwab.revoked == []


@pytest.mark.deep
def test_refused_code_leaves_a_pending_provider_without_token(desk: Desk) -> None:
    desk.schwab.script = [OutcomeUnknown("timeout")]

    with pytest.raises(OutcomeUnknown):
        _link(desk, _user(desk.runtime))

    assert [row["status"] for row in desk.rows("SELECT status FROM providers")] == ["pending"]
    assert desk.rows("SELECT 1 FROM provider_tokens") == []


def test_exchange_that_does_not_end_is_given_up(make_desk: MakeDesk) -> None:
    desk = make_desk(http_total_seconds=0.01, lease_seconds=0.02)

    async def never(_: str) -> TokenAnswer:
        await asyncio.Event().wait()
        return answer()

    desk.schwab.script = [never]

    with pytest.raises(Transient, match="deadline"):
        _link(desk, _user(desk.runtime))


@pytest.mark.deep
@pytest.mark.parametrize(("found", "error"), [(False, NotFound), (True, Fenced)], ids=["gone", "linked_meanwhile"])
def test_grant_is_stored_for_the_provider_and_generation_that_it_was_made_for(
    desk: Desk, found: bool, error: type[Exception]
) -> None:
    id_ = desk.link(generation=4)
    grant = seal_answer(
        desk.runtime.encryption,
        None,
        answer(7),
        provider_id=id_ if found else uuid4(),
        generation=3,
        issued_at=datetime.now(UTC),
        new_grant=True,
    )

    with pytest.raises(error), desk.runtime.transaction() as session:
        links.store_grant(session, token=grant, owner=uuid4())

    assert desk.plain(id_, "refresh") == "refresh-1"
    assert desk.token(id_)["lease_owner"] is None


def test_unknown_user_and_integration_are_named(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no user"):
        desk.runtime.run(begin.begin_link(desk.runtime, "schwab", uuid4(), "Main"))
    with pytest.raises(NotFound, match="no integration nowhere"):
        desk.runtime.run(begin.begin_link(desk.runtime, "nowhere", uuid4(), "Main"))


def test_each_kind_of_link_refuses_the_others_way(desk: Desk) -> None:
    user = _user(desk.runtime)
    with pytest.raises(Refused, match="authorise URL"):
        desk.runtime.run(complete.link_with_form(desk.runtime, "schwab", user, "Main", {"public_token": "public-1"}))
    desk.schwab.link_kind = PUBLIC_TOKEN
    with pytest.raises(Refused, match="public token"):
        desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, "Main"))
    desk.schwab.link_kind = FILE
    with pytest.raises(Refused, match="its data comes in files"):
        desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, "Main"))


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({}, "nothing was given as API key, API secret"),
        ({"key": "k-1", "secret": " \n"}, "nothing was given as API secret"),
        ({"key": "k-1", "secret": "s-1", "pin": "1"}, "the form has no field pin; it has key, secret"),
    ],
)
def test_form_that_is_not_filled_in_links_nothing(desk: Desk, form: dict[str, str], says: str) -> None:
    desk.schwab.link_kind = KEY_AND_SECRET

    with pytest.raises(Refused, match=says):
        desk.runtime.run(complete.link_with_form(desk.runtime, "schwab", _user(desk.runtime), "Main", form))

    assert desk.schwab.forms == []
    assert desk.rows("SELECT 1 FROM providers") == []


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (KEY_AND_SECRET, {"key": " k-1 ", "secret": "s-1\n"}),
        (KEY_FILE, {"key_id": "k-1\n", "key_file": "one line\nand another\n"}),
        (FILE, {}),
    ],
    ids=["key_and_secret", "key_file", "file"],
)
def test_filled_in_form_reaches_the_integration_by_its_fields(desk: Desk, kind: LinkKind, form: dict[str, str]) -> None:
    desk.schwab.link_kind = kind

    id_ = desk.runtime.run(complete.link_with_form(desk.runtime, "schwab", _user(desk.runtime), "Main", form))

    assert desk.schwab.forms == [{name: value.strip() for name, value in form.items()}]
    assert desk.provider(id_)["status"] == "active"


@pytest.mark.deep
def test_code_verifier_ties_the_consent_to_the_exchange_and_is_kept_encrypted(desk: Desk) -> None:
    desk.schwab.link_kind = OAUTH_PKCE
    begun = _begin(desk, _user(desk.runtime))
    (kept,) = desk.rows("SELECT code_verifier FROM link_states")

    desk.runtime.run(begun.complete(desk))

    ((challenge,), (form,)) = (desk.schwab.challenges, desk.schwab.forms)
    verifier = form["code_verifier"]
    digest = hashlib.sha256(verifier.encode()).digest()
    assert challenge == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert 43 <= len(verifier) <= 128
    assert verifier not in kept["code_verifier"]
    assert kept["code_verifier"].startswith("gAAAAA")
    assert desk.rows("SELECT 1 FROM link_states") == []


def test_code_verifier_of_another_user_or_key_completes_nothing(desk: Desk) -> None:
    desk.schwab.link_kind = OAUTH_PKCE
    begun = _begin(desk, _user(desk.runtime))
    sealed = pkce.seal_verifier(desk.runtime.encryption, "v" * 43, user_id=uuid4())
    with desk.runtime.transaction() as session:
        session.execute(text("UPDATE link_states SET code_verifier = :sealed"), {"sealed": sealed})

    with pytest.raises(Refused, match="start linking again"):
        desk.runtime.run(begun.complete(desk))

    assert desk.schwab.forms == []


@pytest.mark.deep
def test_consent_without_pkce_has_no_verifier(desk: Desk) -> None:
    _link(desk, _user(desk.runtime))

    assert desk.schwab.challenges == [None]
    assert desk.schwab.forms == [{"code": "C0.abc+d@"}]


@pytest.mark.deep
@pytest.mark.parametrize("alias", ["", "x" * 101])
def test_alias_out_of_bounds_is_refused(desk: Desk, alias: str) -> None:
    with pytest.raises(Refused, match="alias"):
        desk.runtime.run(begin.begin_link(desk.runtime, "schwab", _user(desk.runtime), alias))


@pytest.mark.deep
def test_unlink_revokes_forgets_the_token_and_stops_everything(desk: Desk) -> None:
    id_ = _link(desk, _user(desk.runtime))

    revoked = desk.runtime.run(end.unlink(desk.runtime, id_, actor="operator:kim"))

    provider = desk.provider(id_)
    assert revoked is True
    assert desk.schwab.revoked == [("access-2", "refresh-2")]
    assert provider["status"] == "unlinked"
    assert (provider["refresh_due_at"], provider["sync_due_at"]) == (None, None)
    assert desk.rows("SELECT 1 FROM provider_tokens") == []
    assert desk.audit(id_) == ["linked", "unlinked"]


@pytest.mark.deep
def test_link_after_an_unlink_owes_nothing_to_the_old_tokens_unknown_outcomes(desk: Desk) -> None:
    user = _user(desk.runtime)
    id_ = _link(desk, user)
    desk.schwab.script = [OutcomeUnknown("timeout"), OutcomeUnknown("timeout")]
    desk.refresh(id_, force=True)
    assert desk.refresh(id_, force=True) == {id_: Outcome.NEEDS_REAUTH}
    desk.runtime.run(end.unlink(desk.runtime, id_))
    _link(desk, user)

    assert desk.refresh(id_, force=True) == {id_: Outcome.REFRESHED}


@pytest.mark.deep
def test_generations_go_on_after_an_unlinking(desk: Desk) -> None:
    user, id_, used = _linked_and_refreshed(desk)
    desk.runtime.run(end.unlink(desk.runtime, id_))
    desk.rows("DELETE FROM token_refreshes")  # as retention does

    assert _link(desk, user) == id_

    assert desk.token(id_)["generation"] == used + 1
    # A sync of the old link learns only now that its login is gone at the provider.
    with desk.runtime.transaction() as session:
        assert not reauth.need_reauth(
            session, provider_id=id_, generation=used, reason="ITEM_NOT_FOUND", channels=(), task_id=None
        )
    assert desk.provider(id_)["status"] == "active"


@pytest.mark.deep
def test_generations_go_on_after_an_unlinking_by_a_worker_of_the_release_before(desk: Desk) -> None:
    user, id_, used = _linked_and_refreshed(desk)
    desk.rows("DELETE FROM provider_tokens")
    desk.rows("UPDATE providers SET status = 'unlinked'")

    _link(desk, user)

    assert desk.token(id_)["generation"] == used + 1


@pytest.mark.deep
def test_failed_revocation_still_ends_the_link_here(desk: Desk) -> None:
    id_ = _link(desk, _user(desk.runtime))
    desk.schwab.script = [Transient("http_503")]

    assert desk.runtime.run(end.unlink(desk.runtime, id_)) is False
    assert desk.provider(id_)["status"] == "unlinked"


def test_unlink_of_a_token_that_cannot_be_read_ends_the_link_here(desk: Desk) -> None:
    id_ = desk.link(token={"access_token": "gAAAAA"})

    assert desk.runtime.run(end.unlink(desk.runtime, id_)) is False
    assert desk.provider(id_)["status"] == "unlinked"
    assert desk.schwab.revoked == []


@pytest.mark.deep
def test_unlink_of_a_provider_that_never_had_a_token(desk: Desk) -> None:
    id_ = desk.link()
    desk.rows("DELETE FROM provider_tokens")

    assert desk.runtime.run(end.unlink(desk.runtime, id_)) is False
    assert desk.schwab.revoked == []


def test_unlink_waits_for_nobody_for_ever(make_desk: Any) -> None:
    desk = make_desk(http_total_seconds=0.02, lease_seconds=0.05)
    lease = {"lease_owner": uuid4(), "lease_until": datetime.now(UTC) + timedelta(minutes=1)}
    id_ = desk.link(token=lease)

    with pytest.raises(Refused, match="refreshed just now"):
        desk.runtime.run(end.unlink(desk.runtime, id_))
    assert desk.provider(id_)["status"] == "active"


def test_unlink_of_nobody_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound):
        desk.runtime.run(end.unlink(desk.runtime, uuid4()))


@pytest.mark.deep
def test_no_token_reaches_a_log(desk: Desk, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    secret = "very-secret-value"
    desk.schwab.script = [answer(1, access_token=secret, refresh_token=secret)] * 2
    with caplog.at_level(logging.DEBUG):
        id_ = _link(desk, _user(desk.runtime))
        desk.refresh(id_, force=True)
        desk.runtime.run(access_token(desk.runtime, id_, caller=Caller()))

    captured = capsys.readouterr()
    assert secret not in caplog.text + captured.out + captured.err
