"""A login at a SimpleFIN server that is linked a second time: what came for the setup token is not lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.factories import make_user
from tests.integration.sync.test_sandbox_sync import assert_equal_books, sync
from tests.integration.sync.test_sandbox_sync import runtime as runtime
from tests.support.sandbox import SandboxAdmin
from worker.errors import EncryptionError, ReauthRequired, Refused, Unavailable
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime
from worker.services.linking import complete, kept, revocation
from worker.services.linking.duplicates import LinkedAlready


class Person:
    """A user with a login at the server that is linked and synced."""

    def __init__(self, runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> None:
        self.runtime, self.engine, self.sandbox = runtime, engine, sandbox
        self.login = sandbox.logins("simplefin")[0]
        self.user_id = self.another()
        self.first = self.link("First", self.token())
        assert sync(runtime, self.first).status == RunStatus.COMPLETED

    def another(self) -> UUID:
        with self.runtime.transaction() as session:
            return make_user(session).id

    def token(self) -> str:
        return self.sandbox.link(self.login)["setup_token"]

    def link(self, alias: str, token: str, *, anyway: bool = False, user_id: UUID | None = None) -> UUID:
        form, user_id = {"setup_token": token}, user_id or self.user_id
        linking = complete.link_with_form(self.runtime, "simplefin", user_id, alias, form, anyway=anyway)
        return self.runtime.run(linking)

    def refused(self, alias: str = "Second") -> tuple[str, LinkedAlready]:
        """A setup token with which a second link was refused, and the error."""
        token = self.token()
        with pytest.raises(LinkedAlready) as refused:
            self.link(alias, token)
        return token, refused.value

    def rows(self, sql: str) -> Sequence[Any]:
        with self.engine.begin() as connection:
            return connection.execute(text(sql)).all()


@pytest.fixture
def person(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> Person:
    return Person(runtime, engine, sandbox)


@pytest.mark.deep
def test_second_link_is_refused_and_what_came_for_the_token_is_kept(person: Person) -> None:
    person.sandbox.clear_log()

    token, error = person.refused()

    assert 'linked already as "First"' in str(error)
    assert "enter the same setup token again" in str(error)
    assert "add --anyway to your command, and enter the same setup token" in error.for_operators
    assert token not in str(error) + error.for_operators + error.for_clients
    assert person.rows("SELECT alias, status FROM providers") == [("First", "active")]
    (asked,) = person.sandbox.log(kind="data")  # one of the day's calls
    assert asked["path"] == "/accounts"
    ((grant, reason, name),) = person.rows("SELECT access_token, reason, external_id FROM revocations")
    assert (reason, name[:5]) == ("abandoned", "once:")
    assert "simplefin" not in grant
    assert token not in name


@pytest.mark.deep
def test_same_token_links_the_login_a_second_time_if_the_person_says_so(
    person: Person, runtime: Runtime, engine: Engine, sandbox: SandboxAdmin
) -> None:
    token, _ = person.refused()
    sandbox.clear_log()

    second = person.link("Second", f" {token[:9]}\n{token[9:]} ", anyway=True)

    assert second != person.first
    assert sandbox.log() == []  # the token was not claimed again
    assert sync(runtime, second).status == RunStatus.COMPLETED
    assert_equal_books(engine, sandbox, person.login, second)
    assert person.rows("SELECT 1 FROM revocations") == []


def test_same_token_links_the_first_login_again(person: Person, runtime: Runtime) -> None:
    token, _ = person.refused()

    assert person.link("First", token) == person.first
    assert sync(runtime, person.first).status == RunStatus.COMPLETED


@pytest.mark.deep
def test_refused_twice_is_kept_twice(person: Person) -> None:
    token, _ = person.refused()

    with pytest.raises(LinkedAlready):
        person.link("Second", token)
    with pytest.raises(LinkedAlready):
        person.link("Third", token)

    assert len(person.rows("SELECT 1 FROM revocations")) == 1
    assert person.link("Third", token, anyway=True) != person.first


def test_what_is_kept_is_there_until_it_is_linked(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = person.refused()

    class Killed(BaseException):
        """The process ended here."""

    with monkeypatch.context() as patch:
        patch.setattr(kept, "plain", Mock(side_effect=EncryptionError("no configured key decrypts it")))
        with pytest.raises(EncryptionError):
            person.link("Second", token, anyway=True)
    with monkeypatch.context() as patch:
        patch.setattr(complete, "store_in_time", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            person.link("Second", token, anyway=True)
    with monkeypatch.context() as patch:
        patch.setattr(complete, "store_in_time", Mock(side_effect=Unavailable("away")))
        with pytest.raises(Unavailable, match="is still kept: enter the same again"):
            person.link("Second", token, anyway=True)

    assert person.link("Second", token, anyway=True) != person.first
    assert person.rows("SELECT 1 FROM revocations") == []


def test_what_somebody_has_just_linked_is_not_linked_again(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = person.refused()
    find = kept.find

    async def find_late(*given: Any) -> kept.Kept | None:
        found = await find(*given)
        person.rows("DELETE FROM revocations RETURNING id")
        return found

    monkeypatch.setattr(kept, "find", find_late)
    with pytest.raises(Refused, match="has just been linked"):
        person.link("Second", token, anyway=True)

    assert person.rows("SELECT alias, status FROM providers") == [("First", "active")]
    assert person.rows("SELECT 1 FROM revocations") == []


@pytest.mark.deep
def test_what_is_being_ended_is_not_given_to_anybody(person: Person) -> None:
    token, _ = person.refused()
    person.rows("UPDATE revocations SET attempts = 1 RETURNING id")

    with pytest.raises(ReauthRequired, match="used before"):
        person.link("Second", token, anyway=True)


@pytest.mark.deep
def test_token_gives_nothing_to_another_user(person: Person) -> None:
    token, _ = person.refused()

    with pytest.raises(ReauthRequired, match="used before"):
        person.link("Mine", token, user_id=person.another())


@pytest.mark.deep
def test_what_nobody_asks_for_again_is_forgotten_after_a_day(person: Person, runtime: Runtime) -> None:
    token, _ = person.refused()
    early = runtime.run(revocation.revoke_waiting(runtime))
    person.rows("UPDATE revocations SET due_at = due_at - interval '1 day' RETURNING id")

    late = runtime.run(revocation.revoke_waiting(runtime))

    assert (early, late) == (0, 1)
    with pytest.raises(ReauthRequired, match="used before"):
        person.link("Second", token, anyway=True)


@pytest.mark.deep
def test_accounts_that_look_alike_are_told_apart_by_their_ids(person: Person) -> None:
    person.rows("UPDATE accounts SET name = 'Checking', mask = NULL, type = 'depository' RETURNING id")
    alike = '{"id": "%s", "conn_id": "CON-0", "name": "Checking", "currency": "USD", "balance": "1", "balance-date": 0}'
    ids = [id_ for (id_,) in person.rows("SELECT provider_account_id FROM accounts")]
    body = ", ".join(alike % id_ for id_ in ids)
    person.sandbox.inject(
        "answer", status=200, body=f'{{"errlist": [], "connections": [], "accounts": [{body}]}}', kind="data"
    )

    person.refused()


@pytest.mark.deep
def test_login_is_linked_if_the_server_does_not_list_the_accounts(person: Person) -> None:
    person.sandbox.inject("answer", status=403, kind="data")

    assert person.link("Second", person.token()) != person.first
