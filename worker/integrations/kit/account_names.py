"""Names and last digits of accounts as they are stored and shown: a whole number never is."""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.integrations.kit.masking import last_four, without_numbers
from worker.integrations.kit.reading import without_nul

_SHOWN = re.compile(r"[A-Za-z0-9]{2,4}")


class Names(NamedTuple):
    """How an account is called: its own name, the same with its institution before it, and the institution's name."""

    name: str
    official: str
    institution: str | None


def names(given: str | None, institution: str | None, *, otherwise: str) -> Names:
    """The names of an account, in which long numbers are shortened.

    Args:
        given: as the provider calls it; if it is empty, the account is called like its institution.
        institution: it is not put before a name that begins with it.
        otherwise: the name if there is neither.
    """
    place = without_nul(institution or "").strip()
    name = without_numbers(without_nul(given or place)).strip() or without_numbers(otherwise)
    return Names(name, name if name.startswith(place) else f"{place} {name}", place or None)


def mask(number: str) -> str | None:
    """The last four characters of a number, as in `last_four`; None if they are not all letters and digits."""
    last = last_four(number)
    return last if _SHOWN.fullmatch(last) else None
