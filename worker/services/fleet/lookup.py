"""Finds a login by its id, the beginning of its id, or its alias, and other rows by the beginning of their id."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.fleet import overview
from worker.errors import BadArgument, NotFound
from worker.models.fleet import ProviderRow

_HEX = re.compile(r"[0-9a-fA-F-]{4,36}")
# Users choose aliases freely. For text that no alias may contain, the error differs from that for an unknown alias.
_SUSPICIOUS = re.compile(r"[;\x00-\x1f\x7f]|--")


class _Row(Protocol):
    @property
    def id(self) -> UUID: ...


R = TypeVar("R", bound=_Row)


def provider(session: OpenTransaction, given: str) -> ProviderRow:
    """The one login that `given` names.

    Raises:
        BadArgument: `given` cannot be an id or an alias, or it names no login, or several.
    """
    if not given or len(given) > 100 or _SUSPICIOUS.search(given):
        raise BadArgument("that is no provider id and no alias; `dashtam providers` lists them")
    first, last = id_range(given)
    found = overview.find_providers(session, first=first, last=last, alias=given)
    if not found:
        raise BadArgument(f"no provider has the id or alias {given!r}; `dashtam providers` lists them")
    return _only(found, given, "provider")


def id_range(given: str) -> tuple[UUID | None, UUID | None]:
    """The lowest and the highest id that begin with this text; None twice when no id can."""
    digits = given.replace("-", "")
    if not _HEX.fullmatch(given) or not 4 <= len(digits) <= 32:
        return None, None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def by_id(session: OpenTransaction, given: str, noun: str, lists: str, between: Callable[..., Sequence[R]]) -> R:
    """The one row that `given` names.

    Args:
        session: the transaction.
        given: the beginning of its id.
        noun: what it is called in errors.
        lists: the command that lists such rows.
        between: the query for the rows with ids in a range.

    Raises:
        BadArgument: `given` cannot be the beginning of an id, or the ids of several rows begin with it.
        NotFound: no row's id begins with it.
    """
    first, last = id_range(given)
    if first is None:
        raise BadArgument(f"that is no {noun} id and not the beginning of one; `{lists}` lists them")
    found = between(session, first=first, last=last)
    if not found:
        raise NotFound(f"no {noun} has an id that begins with {given}; `{lists}` lists them")
    return _only(found, given, noun)


def _only(found: Sequence[R], given: str, noun: str) -> R:
    if len(found) > 1:
        ids = ", ".join(str(row.id) for row in found)
        raise BadArgument(f"{given!r} means more than one {noun} ({ids}, …); give more of the id")
    return found[0]
