"""Logins whose state is asked for at their provider: after a hook, and to set the address for hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.factories import make_user
from tests.support.fixtures import MakeRuntime
from tests.support.sandbox import SandboxAdmin
from worker.crud import hooks
from worker.models.hooks import Ask, Hook
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime
from worker.services.hooks import addresses, checking
from worker.services.linking import complete
from worker.services.sync import batch

PUBLIC = "http://127.0.0.1:9"
"""Nothing listens there: the sandbox's own hooks are lost."""


@dataclass(frozen=True)
class Linked:
    """A Plaid login of the sandbox."""

    runtime: Runtime
    sandbox: SandboxAdmin
    id: UUID

    def row(self, query: str) -> tuple[Any, ...]:
        with self.runtime.transaction() as session:
            return tuple(session.execute(text(query), {"id": self.id}).one())

    def execute(self, statement: str) -> None:
        with self.runtime.transaction() as session:
            session.execute(text(statement), {"id": self.id})

    def state(self) -> tuple[str, str | None]:
        status, reason = self.row("SELECT status, status_reason FROM providers WHERE id = :id")
        return status, reason

    def url(self) -> str | None:
        found: str | None = self.row("SELECT hook_url FROM providers WHERE id = :id")[0]
        return found

    def waiting(self) -> int:
        return int(self.row("SELECT count(*) FROM login_checks WHERE provider_id = :id")[0])

    def want_check(self) -> None:
        """As a hook does it."""
        with self.runtime.transaction() as session:
            (item,) = session.execute(text("SELECT external_id FROM providers WHERE id = :id"), {"id": self.id}).one()
            hooks.receive(
                session,
                provider_key="plaid",
                hook=Hook("ITEM/ERROR", str(self.row("SELECT gen_random_uuid()")[0]), login=item),
                asks=frozenset({Ask.CHECK}),
                body_sha256=b"",
                pause=timedelta(seconds=5),
                burst=timedelta(seconds=60),
                channels=("log",),
            )

    def check(self) -> list[list[UUID]]:
        """What the tick does, and then its batches. Returns the batches."""
        runtime = self.runtime
        batches = runtime.run(checking.claim_checks(runtime, runtime.run(runtime.now()) + timedelta(seconds=1)))
        for ids in batches:
            runtime.run(checking.check_logins(runtime, ids))
        return batches

    def asked(self, path: str) -> int:
        return len(self.sandbox.log(path=path))


Link = Callable[..., Linked]


@pytest.fixture
def link(make_runtime: MakeRuntime, sandbox: SandboxAdmin) -> Link:
    """Links a login: `link(web_public_url="")`."""

    def made(**settings: Any) -> Linked:
        runtime = make_runtime(**{"web_public_url": PUBLIC} | settings)
        with runtime.transaction() as session:
            user_id = make_user(session).id
        form = sandbox.link("plaid-1")
        id_ = runtime.run(complete.link_with_form(runtime, "plaid", user_id, "My bank", form))
        return Linked(runtime, sandbox, id_)

    return made


@pytest.mark.deep
def test_new_link_gets_our_address_at_the_provider(link: Link) -> None:
    linked = link()

    linked.check()

    assert linked.url() == f"{PUBLIC}/webhooks/plaid"
    assert linked.waiting() == 0
    assert linked.asked("/item/webhook/update") == 1
    assert linked.check() == []


def test_old_link_gets_it_by_upkeep_and_each_login_once(link: Link) -> None:
    linked = link(web_public_url="")
    assert linked.check() == []
    linked.runtime.settings = linked.runtime.settings.model_copy(update={"web_public_url": PUBLIC})

    for _ in range(2):
        linked.runtime.run(addresses.want_addresses(linked.runtime))
        linked.check()

    assert linked.url() == f"{PUBLIC}/webhooks/plaid"
    assert linked.asked("/item/webhook/update") == 1


@pytest.mark.deep
def test_login_that_is_linked_again_gets_the_address_for_its_new_grant(link: Link) -> None:
    linked = link()
    linked.check()
    user_id = linked.row("SELECT user_id FROM providers WHERE id = :id")[0]

    again = complete.link_with_form(linked.runtime, "plaid", user_id, "My bank", linked.sandbox.link("plaid-1"))
    assert linked.runtime.run(again) == linked.id
    unknown = linked.url()
    linked.check()

    assert (unknown, linked.url()) == (None, f"{PUBLIC}/webhooks/plaid")
    assert linked.asked("/item/webhook/update") == 2


@pytest.mark.deep
def test_link_that_has_the_address_already_is_left_alone(link: Link) -> None:
    linked = link()
    linked.check()
    linked.execute("UPDATE providers SET hook_url = NULL WHERE id = :id")

    linked.runtime.run(addresses.want_addresses(linked.runtime))
    linked.check()

    assert linked.url() == f"{PUBLIC}/webhooks/plaid"
    assert linked.asked("/item/webhook/update") == 1


@pytest.mark.parametrize("revoked", [True, False])
def test_login_that_does_not_work_needs_its_user_with_the_provider_s_reason(link: Link, revoked: bool) -> None:
    linked = link()
    if revoked:
        linked.sandbox.revoke("plaid-1")
    else:
        linked.sandbox.break_login("plaid-1", "ITEM_LOGIN_REQUIRED")
    linked.want_check()

    linked.check()

    assert linked.state() == ("needs_reauth", "OAUTH_USER_REVOKED" if revoked else "ITEM_LOGIN_REQUIRED")
    assert linked.row("SELECT count(*) FROM notices WHERE provider_id = :id AND stage = 'needs_reauth'") == (1,)
    assert linked.waiting() == 0


@pytest.mark.deep
def test_hook_that_is_not_true_changes_nothing(link: Link) -> None:
    linked = link()
    linked.want_check()

    linked.check()

    assert linked.state() == ("active", None)
    assert linked.row("SELECT count(*) FROM notices WHERE provider_id = :id") == (0,)


@pytest.mark.deep
def test_login_that_its_user_has_mended_elsewhere_is_active_again(link: Link) -> None:
    linked = link()
    runtime = linked.runtime
    runtime.run(batch.sync_providers(runtime, [linked.id], trigger=Trigger.MANUAL, force=True))
    linked.sandbox.revoke("plaid-1")
    runtime.run(batch.sync_providers(runtime, [linked.id], trigger=Trigger.MANUAL, force=True))
    assert linked.state()[0] == "needs_reauth"
    linked.want_check()
    linked.check()
    assert linked.state()[0] == "needs_reauth"

    linked.sandbox.link("plaid-1")  # the user logs in again, in another application
    linked.want_check()
    linked.check()

    assert linked.state() == ("active", None)
    assert linked.row("SELECT sync_due_at <= now() FROM providers WHERE id = :id") == (True,)


@pytest.mark.deep
def test_check_that_the_provider_does_not_answer_is_tried_again(link: Link) -> None:
    linked = link()
    linked.sandbox.inject("answer", status=503, path="/item/get", times=None)

    linked.check()

    assert linked.waiting() == 1
    assert linked.url() is None
    linked.sandbox.clear_faults()
    linked.execute("UPDATE login_checks SET due_at = now() WHERE provider_id = :id")
    linked.check()
    assert linked.waiting() == 0


@pytest.mark.deep
def test_hook_in_the_middle_of_a_check_asks_for_another(link: Link) -> None:
    linked = link()
    runtime = linked.runtime
    now = runtime.run(runtime.now())
    (ids,) = runtime.run(checking.claim_checks(runtime, now + timedelta(seconds=1)))
    linked.want_check()

    runtime.run(checking.check_logins(runtime, ids))

    assert linked.waiting() == 1


@pytest.mark.deep
def test_consent_that_ends_is_read_from_the_provider(link: Link) -> None:
    linked = link()
    linked.execute("UPDATE providers SET grant_expires_at = now() WHERE id = :id")

    linked.check()

    assert linked.row("SELECT grant_expires_at FROM providers WHERE id = :id") == (None,)
