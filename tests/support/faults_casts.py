"""Whose logins the story of the fault tests is about, and what of each integration its stand-in can disturb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.providers import REFRESHED_KEY, SYNCED_KEY


@dataclass(frozen=True, slots=True)
class Played:
    """An integration in the story.

    Attributes:
        page: a part of the path of a page that a sync reads; a request for it can be held in the middle of its answer.
        rotates: its tokens are refreshed and rotate, so its stand-in has a policy for them.
        asks: what its user enters before the consent, line by line.
        names_logins: its stand-in mints logins with an id, so that another one under an alias ends the old grant.
    """

    page: str
    rotates: bool = False
    asks: tuple[str, ...] = ()
    names_logins: bool = False


PLAYED: Mapping[str, Played] = {
    "schwab": Played("/transactions", rotates=True),
    "plaid": Played("/transactions/sync", names_logins=True),
    "simplefin": Played("/accounts"),
    "snaptrade": Played("/activities", rotates=True),
    "enable_banking": Played("/transactions", asks=("Zweite Bank, DE, personal",)),
}

Cast = Mapping[str, int]
"""How many logins of which integration; the first one is that whose refreshes are disturbed."""


def cast(*, refreshed: str = REFRESHED_KEY, synced: str = SYNCED_KEY) -> Cast:
    """Three logins whose refreshes are disturbed, and two whose syncs are."""
    return {refreshed: 3, synced: 2}


USUAL = cast()


def logins_of(members: Cast) -> dict[str, list[str]]:
    """The names of the sandbox's logins, by integration."""
    return {key: [f"{key}-{number}" for number in range(1, count + 1)] for key, count in members.items()}


def played(login: str) -> Played:
    """The integration of this login."""
    return PLAYED[login.rpartition("-")[0]]


def page_of(login: str) -> str:
    """The path at which a sync of this login can be held in the middle of a page."""
    return played(login).page


def others(refreshed: Sequence[str] = (), synced: Sequence[str] = ()) -> dict[str, Cast]:
    """Casts in which another integration has the part, by a name for each."""
    casts = {f"refreshes_{key}": cast(refreshed=key) for key in refreshed if key != REFRESHED_KEY}
    return casts | {f"syncs_{key}": cast(synced=key) for key in synced if key != SYNCED_KEY}
