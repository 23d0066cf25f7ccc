"""A rule that no linter knows; the others are ruff's and import-linter's (`make lint`)."""

from __future__ import annotations

from tests.support.environment import ROOT


def test_unit_tests_do_not_sleep() -> None:
    call = "time." + "sleep("

    assert [path.name for path in (ROOT / "tests" / "unit").rglob("test_*.py") if call in path.read_text()] == []
