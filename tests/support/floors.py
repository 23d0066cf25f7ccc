"""What the sessions side by side have covered, and its floors: of everything, and of what grants depend on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from coverage import Coverage

ROOT = Path(__file__).parents[2]
CORE_FLOOR = 97.0


@dataclass(frozen=True)
class Covered:
    """How many of the lines and branches that could run have run."""

    run: int
    all: int

    @property
    def percent(self) -> float:
        return 100.0 * self.run / self.all if self.all else 0.0


def combine() -> None:
    """Makes one file of what the sessions wrote."""
    coverage = Coverage()
    coverage.combine()
    coverage.save()


def overall_floor() -> float:
    """The floor of everything, in per cent: `fail_under` in pyproject.toml."""
    return float(Coverage().get_option("report:fail_under") or 0)  # type: ignore[arg-type]


def measure(core: Sequence[str]) -> tuple[Covered, Covered]:
    """Coverage of everything and of the core.

    Reading the code takes longer than anything else here, so two processes have half of the files each.

    Args:
        core: patterns of its files, as in `worker/services/token*.py`.
    """
    coverage = Coverage()
    coverage.load()
    files = sorted(coverage.get_data().measured_files())
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        found = {name: one for half in pool.map(_summaries, (files[::2], files[1::2])) for name, one in half.items()}
    inner = [one for name, one in found.items() if any(fnmatch(name, pattern) for pattern in core)]
    return _sum(list(found.values())), _sum(inner)


def _summaries(files: list[str]) -> dict[str, dict[str, Any]]:
    coverage = Coverage()
    coverage.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        coverage.json_report(morfs=files, outfile=report.name)
        told = json.loads(Path(report.name).read_bytes())["files"]
    return {str(Path(ROOT / name).relative_to(ROOT)): one["summary"] for name, one in told.items()}


def _sum(summaries: list[dict[str, Any]]) -> Covered:
    return Covered(
        run=sum(one["covered_lines"] + one["covered_branches"] for one in summaries),
        all=sum(one["num_statements"] + one["num_branches"] for one in summaries),
    )
