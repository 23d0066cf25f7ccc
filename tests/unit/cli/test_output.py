from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from rich.console import Console

from worker.cli.output import duration, plain, plural, print_json, relative, table

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)


def _text(renderable: object) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (5400, "1h 30m"), (90_000, "1d 1h")],
)
def test_spans_are_told_in_two_units(seconds: int, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_moments_are_told_from_now() -> None:
    assert relative(NOW + timedelta(minutes=5), NOW) == "in 5m"
    assert relative(NOW - timedelta(hours=3), NOW) == "3h ago"
    assert relative(None, NOW) == "-"


def test_json_holds_ids_times_and_exact_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"id": UUID(int=1), "at": NOW, "amount": Decimal("0.10")})

    read = msgspec.json.decode(capsys.readouterr().out)
    assert read == {"id": str(UUID(int=1)), "at": "2025-03-14T15:00:00Z", "amount": "0.10"}


def test_markup_in_a_value_stays_text() -> None:
    assert "[red]x[/red]" in _text(table(("a",), [(plain("[red]x[/red]"),)]))


def test_a_table_without_rows_says_so() -> None:
    assert _text(table(("a",), [])).strip() == "none"


def test_plurals() -> None:
    assert (plural(1, "sync"), plural(2, "sync"), plural(0, "entry", "entries")) == ("1 sync", "2 syncs", "0 entries")
