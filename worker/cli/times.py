"""Options that take a day or a moment."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import typer


def day_option(help_: str) -> Any:
    """An option that takes a day, such as 2026-01-31, and gives it as a `date`."""
    return typer.Option(metavar="YYYY-MM-DD", help=help_, parser=_day)


def moment_option(help_: str) -> Any:
    """An option that takes a day or a moment, and gives it as a `datetime` in UTC; without a zone it is in UTC."""
    return typer.Option(metavar="YYYY-MM-DD[THH:MM:SS]", help=help_, parser=_moment)


def _day(given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is not a day; write it as in 2026-01-31") from None


def _moment(given: str) -> datetime:
    try:
        moment = datetime.fromisoformat(given)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{given!r} is not a moment; write it as in 2026-01-31 or 2026-01-31T10:00:00, in UTC"
        ) from None
