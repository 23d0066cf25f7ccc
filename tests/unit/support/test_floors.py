"""Coverage of files that have not changed is taken from the last time, and is the same as if it were counted anew."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from coverage import CoverageData

from tests.support.floors import Covered, measure

Measured = Callable[..., tuple[Covered, Covered]]
_SOURCE = "def one(x):\n    if x:\n        return 1\n    return 2\n"


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Measures a project of two files, `core.py` and `rest.py`, in which these branches have run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COVERAGE_FILE", raising=False)  # `make test` sets it

    def measured(core: Collection[tuple[int, int]], *, source: str = _SOURCE) -> tuple[Covered, Covered]:
        (tmp_path / "core.py").write_text(source)
        (tmp_path / "rest.py").write_text("a = 1\n")
        data = CoverageData(".coverage")
        data.erase()
        data.add_arcs({str(tmp_path / "core.py"): core, str(tmp_path / "rest.py"): [(-1, 1), (1, -1)]})
        data.write()
        data.close()
        return measure(["core*"], results=tmp_path / "kept" / "results.json")

    return measured


_HALF = [(-1, 1), (1, -1), (-1, 2), (2, 3), (3, -1)]


def test_lines_and_branches_are_counted(measured: Measured) -> None:
    assert measured(_HALF) == (Covered(5, 7), Covered(4, 6))


def test_second_time_gives_the_same(measured: Measured, tmp_path: Path) -> None:
    first = measured(_HALF)
    kept = (tmp_path / "kept" / "results.json").read_text()

    assert measured(_HALF) == first
    assert (tmp_path / "kept" / "results.json").read_text() == kept


def test_what_more_has_run_is_counted_anew(measured: Measured) -> None:
    measured(_HALF)

    assert measured([*_HALF, (2, 4), (4, -1)]) == (Covered(7, 7), Covered(6, 6))


def test_changed_text_is_counted_anew(measured: Measured) -> None:
    measured(_HALF)

    assert measured(_HALF, source=f"{_SOURCE}b = 3\n") == (Covered(5, 8), Covered(4, 7))


def test_results_that_cannot_be_read_are_made_anew(measured: Measured, tmp_path: Path) -> None:
    first = measured(_HALF)
    (tmp_path / "kept" / "results.json").write_text("{")

    assert measured(_HALF) == first
