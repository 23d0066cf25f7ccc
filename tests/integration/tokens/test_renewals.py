"""A consent renewed in place, as by Plaid's Link in update mode."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.factories import make_user
from tests.support.sandbox import SandboxAdmin
from worker.errors import ReauthRequired, Refused
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime
from worker.services.linking import begin, complete, end, renew
from worker.services.sync import batch

pytestmark = pytest.mark.deep


@dataclass(frozen=True)
class Linked:
    """A Plaid login of the sandbox."""

    runtime: Runtime
    sandbox: SandboxAdmin
    user_id: UUID
    id: UUID

    def sync(self) -> None:
        self.runtime.run(batch.sync_providers(self.runtime, [self.id], trigger=Trigger.MANUAL, force=True))

    def needs_its_user(self) -> None:
        """Its user withdraws the consent, and a sync finds out."""
        self.sandbox.revoke("plaid-1")
        self.sync()
        assert self.state() == ("needs_reauth", "ITEM_LOGIN_REQUIRED")

    def state(self) -> tuple[str, str | None]:
        row = self.row("SELECT status, status_reason FROM providers WHERE id = :id")
        return row[0], row[1]

    def row(self, query: str) -> tuple[object, ...]:
        with self.runtime.transaction() as session:
            return tuple(session.execute(text(query), {"id": self.id}).one())

    def find(self) -> UUID | None:
        return self.runtime.run(renew.find_renewable(self.runtime, "plaid", self.user_id, "My bank"))


@pytest.fixture
def linked(runtime: Runtime, sandbox: SandboxAdmin) -> Linked:
    with runtime.transaction() as session:
        user_id = make_user(session).id
    form = sandbox.link("plaid-1")
    provider_id = runtime.run(complete.link_with_form(runtime, "plaid", user_id, "My bank", form))
    return Linked(runtime, sandbox, user_id, provider_id)


def test_a_renewed_login_works_on_with_the_item_that_it_had(linked: Linked) -> None:
    linked.sync()
    before = linked.row("SELECT external_id, count(t.id) FROM providers p JOIN accounts a ON a.provider_id = p.id"
                        " JOIN transactions t ON t.account_id = a.id WHERE p.id = :id GROUP BY 1")  # fmt: skip
    linked.needs_its_user()
    assert linked.find() == linked.id

    begun = linked.runtime.run(renew.begin_renewal(linked.runtime, linked.id))
    linked.sandbox.link("plaid-1")  # the user goes through Link
    linked.runtime.run(renew.complete_renewal(linked.runtime, linked.id))
    linked.sync()

    assert begun.link_token.startswith("link-sandbox-")
    assert begun.link_token not in repr(begun)
    assert linked.state() == ("active", None)
    assert linked.row("SELECT external_id FROM providers WHERE id = :id")[0] == before[0]
    assert linked.row("SELECT generation FROM provider_tokens WHERE provider_id = :id") == (2,)
    assert linked.row("SELECT status FROM sync_runs WHERE provider_id = :id ORDER BY id DESC LIMIT 1") == ("completed",)


def test_its_user_is_told_again_when_the_consent_ends_a_second_time(linked: Linked) -> None:
    linked.needs_its_user()
    linked.sandbox.link("plaid-1")
    linked.runtime.run(renew.complete_renewal(linked.runtime, linked.id))

    linked.needs_its_user()

    count = "SELECT count(DISTINCT subject_key) FROM notices WHERE provider_id = :id AND stage = 'needs_reauth'"
    assert linked.row(count) == (2,)


def test_a_login_whose_user_has_not_finished_still_needs_its_user(linked: Linked) -> None:
    linked.needs_its_user()

    with pytest.raises(ReauthRequired):
        linked.runtime.run(renew.complete_renewal(linked.runtime, linked.id))

    assert linked.state() == ("needs_reauth", "ITEM_LOGIN_REQUIRED")


def test_a_login_that_was_linked_anew_meanwhile_keeps_that_link(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.needs_its_user()
    form = linked.sandbox.link("plaid-1")
    integration = linked.runtime.integrations["plaid"]
    asks = integration.complete_renewal

    async def linked_anew_meanwhile(*arguments: object, **more: object) -> object:
        answer = await asks(*arguments, **more)  # type: ignore[arg-type]
        await complete.link_with_form(linked.runtime, "plaid", linked.user_id, "My bank", form)
        return answer

    monkeypatch.setattr(integration, "complete_renewal", linked_anew_meanwhile)

    with pytest.raises(Refused, match="linked anew meanwhile"):
        linked.runtime.run(renew.complete_renewal(linked.runtime, linked.id))
    linked.sync()

    assert linked.state() == ("active", None)


def test_only_a_login_that_needs_its_user_is_offered_renewal(linked: Linked) -> None:
    assert linked.find() is None


def test_a_login_that_was_unlinked_is_refused(linked: Linked) -> None:
    linked.runtime.run(end.unlink(linked.runtime, linked.id))

    with pytest.raises(Refused, match="unlinked"):
        linked.runtime.run(renew.begin_renewal(linked.runtime, linked.id))


def test_an_item_that_the_provider_has_forgotten_must_be_linked_anew(linked: Linked) -> None:
    linked.sandbox.link("plaid-1")
    linked.sandbox.mint("plaid-1")  # another Item in its place

    with pytest.raises(ReauthRequired):
        linked.runtime.run(renew.begin_renewal(linked.runtime, linked.id))


def test_a_provider_without_renewal_in_place_is_refused(runtime: Runtime, sandbox: SandboxAdmin) -> None:
    with runtime.transaction() as session:
        user_id = make_user(session).id
    begun = runtime.run(begin.begin_link(runtime, "schwab", user_id, "Home"))
    state = begun.url.partition("state=")[2].partition("&")[0]
    callback = sandbox.link("schwab-1", state=state)["callback_url"]
    provider_id = runtime.run(complete.complete_link(runtime, callback, holder=begun.holder))

    assert runtime.run(renew.find_renewable(runtime, "schwab", user_id, "Home")) is None
    with pytest.raises(Refused, match="no renewal in place"):
        runtime.run(renew.begin_renewal(runtime, provider_id))
