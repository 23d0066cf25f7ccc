"""PROVIDER arguments: an id, the beginning of one, or an alias, as long as it means one provider alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from worker.cli.exits import UsageProblem
from worker.crud.fleet import overview
from worker.crud.fleet.overview import ProviderRow

if TYPE_CHECKING:
    from worker.crud.database import OpenTransaction

ProviderArgument = Annotated[
    str, typer.Argument(metavar="PROVIDER", help="Id, unique beginning of one, or unique alias.", show_default=False)
]

_HEX = re.compile(r"[0-9a-fA-F-]{4,36}")
# Aliases are people's own words; what no alias of ours would hold is told apart from one that is merely unknown.
_SUSPICIOUS = re.compile(r"[;\x00-\x1f\x7f]|--")


def resolve(session: OpenTransaction, given: str) -> ProviderRow:
    """The one provider that is meant.

    Raises:
        UsageProblem: none is, or several are, or this cannot be an id or an alias.
    """
    if not given or len(given) > 100 or _SUSPICIOUS.search(given):
        raise UsageProblem("that is no provider id and no alias; `dashtam providers` lists them")
    first, last = id_range(given)
    found = overview.find_providers(session, first=first, last=last, alias=given)
    if not found:
        raise UsageProblem(f"no provider has the id or alias {given!r}; `dashtam providers` lists them")
    if len(found) > 1:
        ids = ", ".join(str(row.id) for row in found)
        raise UsageProblem(f"{given!r} means more than one provider ({ids}, …); give more of the id")
    return found[0]


def id_range(given: str) -> tuple[UUID | None, UUID | None]:
    """The lowest and the highest id that begin like this; None twice when no id does."""
    digits = given.replace("-", "")
    if not _HEX.fullmatch(given) or not 4 <= len(digits) <= 32:
        return None, None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def parse_id(given: str, noun: str) -> UUID:
    """A whole id.

    Raises:
        UsageProblem: it is none.
    """
    try:
        return UUID(given)
    except ValueError:
        raise UsageProblem(f"that is no {noun} id; `dashtam {noun}s` lists them") from None
