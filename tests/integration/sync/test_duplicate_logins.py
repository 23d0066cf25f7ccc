"""A login that is linked already is not linked a second time by mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar
from uuid import UUID

import pytest
from msgspec import structs

from tests.integration.sync.conftest import Linked
from tests.integration.sync.eras import EraIntegration, Institution, Kept
from worker.errors import Refused, Transient
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.link_kinds import OAUTH
from worker.models.records import AccountRecord
from worker.services.linking import begin, complete
from worker.services.linking.duplicates import LinkedAlready

pytestmark = pytest.mark.deep

FORM = {"public_token": "public-token"}


class Linkable(EraIntegration):
    """An institution that gives each link ids of its own, and lists the accounts of a new one."""

    can_list_accounts: ClassVar[bool] = True
    ended: ClassVar[list[str]]
    exchanged: ClassVar[list[str]]
    told: Sequence[AccountRecord] = ()
    is_down = False

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        self.exchanged.append(self.era)
        return TokenAnswer(f"access-{self.era}", refresh_token="refresh", external_id=self.era)

    def accounts_told(self, form: Mapping[str, str]) -> Sequence[AccountRecord]:
        return self.told

    async def list_accounts(self, caller: Caller, *, access_token: str) -> Sequence[AccountRecord]:
        if self.is_down:
            raise Transient("down")
        return self._listing().accounts

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        self.ended.append(access_token)
        return True


@pytest.fixture
def first(link_model: Callable[..., Linked]) -> Linked:
    """A login that is linked and synced; the next link gets other ids."""
    institution = Institution()
    institution.add(Kept("checking"), Kept("savings", mask="0002"))
    Linkable.ended, Linkable.exchanged = [], []
    linked = link_model(Linkable(institution))
    linked.execute("UPDATE providers SET external_id = 'first', alias = 'First' WHERE id = :id")
    linked.sync()
    linked.integration.era = "second"  # type: ignore[attr-defined]
    return linked


def link(linked: Linked, alias: str = "Second", *, anyway: bool = False, user_id: UUID | None = None) -> UUID:
    ((owner,),) = linked.rows("SELECT user_id FROM providers WHERE id = :id")
    linking = complete.link_with_form(linked.runtime, "model", user_id or owner, alias, FORM, anyway=anyway)
    return linked.runtime.run(linking)


def test_second_link_of_one_login_is_refused_and_says_what_to_do(first: Linked) -> None:
    with pytest.raises(LinkedAlready) as refused:
        link(first)

    assert 'linked already as "First"' in str(refused.value)
    assert "checking …0001, savings …0002" in str(refused.value)
    assert '--alias "First"' in refused.value.for_operators
    assert "--anyway" in refused.value.for_operators
    assert Linkable.ended == ["access-second"]
    assert first.rows("SELECT alias, status FROM providers") == [("First", "active")]
    assert first.rows("SELECT external_id FROM providers") == [("first",)]


def test_login_is_linked_a_second_time_if_the_person_says_so(first: Linked) -> None:
    second = link(first, anyway=True)

    assert second != first.provider_id
    assert Linkable.ended == []


def test_login_that_is_linked_again_under_its_own_name_is_no_second_one(first: Linked) -> None:
    assert link(first, "First") == first.provider_id


def test_second_link_that_a_person_wanted_is_linked_again_under_its_own_name(first: Linked) -> None:
    second = link(first, anyway=True)
    replace(first, provider_id=second).sync()
    first.integration.era = "third"  # type: ignore[attr-defined]

    assert link(first) == second
    assert Linkable.ended == ["access-second"]  # the grant that was replaced


def test_login_that_the_provider_itself_recognises_gets_the_new_grant_under_its_first_name(first: Linked) -> None:
    first.integration.era = "first"  # type: ignore[attr-defined]

    assert link(first) == first.provider_id
    assert Linkable.ended == []
    assert first.rows("SELECT alias, status FROM providers") == [("First", "active")]


def test_logins_that_have_only_some_accounts_in_common_are_two(first: Linked) -> None:
    accounts = first.integration.institution.accounts  # type: ignore[attr-defined]
    del accounts["savings"]
    accounts["card"] = Kept("card", mask="0003")

    assert link(first) != first.provider_id


def test_login_with_one_account_more_is_the_same_one(first: Linked) -> None:
    first.integration.institution.add(Kept("card", mask="0003"))  # type: ignore[attr-defined]

    with pytest.raises(LinkedAlready):
        link(first)


@pytest.mark.parametrize("change", ["status = 'unlinked'", "user_id = :other"], ids=["unlinked", "of_somebody_else"])
def test_login_that_is_not_linked_for_this_user_is_in_nobodys_way(first: Linked, change: str) -> None:
    ((owner,),) = first.rows("SELECT user_id FROM providers WHERE id = :id")
    ((other,),) = first.rows("INSERT INTO users (id) VALUES (gen_random_uuid()) RETURNING id")
    first.execute(f"UPDATE providers SET {change} WHERE id = :id", other=other)  # noqa: S608

    assert link(first, user_id=owner) != first.provider_id


def test_link_goes_on_when_the_provider_does_not_list_the_accounts(first: Linked) -> None:
    first.integration.is_down = True  # type: ignore[attr-defined]

    assert link(first) != first.provider_id


# Before the exchange --------------------------------------------------------------------------------------------------


def told_of(linked: Linked, **changes: str | None) -> list[AccountRecord]:
    """What a form of the provider tells of the accounts: neither the currency nor a stable id."""
    listed = linked.integration._listing().accounts  # type: ignore[attr-defined]
    untold = {"currency": "USD", "stable_keys": ()}
    return [structs.replace(one, **({"account_key": f"f{n}"} | untold | changes)) for n, one in enumerate(listed)]


def test_second_link_is_refused_before_anything_is_exchanged_if_the_form_tells_the_accounts(first: Linked) -> None:
    first.execute("UPDATE accounts SET currency = 'EUR'")
    first.integration.told = told_of(first)  # type: ignore[attr-defined]

    with pytest.raises(LinkedAlready, match="nothing was linked or exchanged"):
        link(first)

    assert (Linkable.exchanged, Linkable.ended) == ([], [])
    assert first.rows("SELECT alias, status FROM providers") == [("First", "active")]
    assert link(first, anyway=True) != first.provider_id


@pytest.mark.parametrize("changes", [{"mask": None}, {"institution": None}, {"institution": "another"}, {"name": "x"}])
def test_accounts_of_which_too_little_is_told_refuse_nothing(first: Linked, changes: dict[str, str | None]) -> None:
    first.integration.told = told_of(first, **changes)  # type: ignore[attr-defined]
    first.integration.is_down = True  # type: ignore[attr-defined]

    assert link(first) != first.provider_id


# By consent at an address ---------------------------------------------------------------------------------------------


class Consented(Linkable):
    """The same at an institution to which the user is sent."""

    link_kind = OAUTH
    redirect_uri = "https://127.0.0.1"

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        return f"https://institution.example/?state={state}"


@pytest.fixture
def consented(first: Linked) -> Linked:
    first.integration.__class__ = Consented
    return first


def consent(linked: Linked, alias: str = "Second", *, anyway: bool = False, cut: int = 0) -> UUID:
    ((owner,),) = linked.rows("SELECT user_id FROM providers WHERE id = :id")
    begun = linked.runtime.run(begin.begin_link(linked.runtime, "model", owner, alias, anyway=anyway))
    back = f"https://127.0.0.1?code=c&state={begun.state[: len(begun.state) - cut]}"
    return linked.runtime.run(complete.complete_link(linked.runtime, back, holder=begun.holder))


def test_second_link_by_consent_is_refused_before_it_is_stored(consented: Linked) -> None:
    with pytest.raises(LinkedAlready):
        consent(consented)

    assert Linkable.ended == ["access-second"]
    assert consented.rows("SELECT alias, status FROM providers") == [("First", "active")]
    assert consent(consented, "First") == consented.provider_id


def test_second_link_by_consent_is_stored_if_the_person_says_so(consented: Linked) -> None:
    with pytest.raises(Refused, match="was not begun here"):
        consent(consented, "Third", anyway=True, cut=len(".anyway"))
    assert consent(consented, anyway=True) != consented.provider_id
