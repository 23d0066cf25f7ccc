"""What the sessions side by side have covered, and its floors: of everything, and of what grants depend on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from coverage import Coverage, CoverageData
from coverage.version import __version__ as version

ROOT = Path(__file__).parents[2]
CORE_FLOOR = 97.0
RESULTS = ROOT / "build" / "coverage.json"


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


def measure(core: Sequence[str], *, results: Path = RESULTS) -> tuple[Covered, Covered]:
    """Coverage of everything and of the core, of the files that the tests below this directory have run.

    Coverage reads and parses every source file for this: six seconds of processor time. The result of a file depends on
    its text, the lines and branches that have run, and the configuration. If none of them has changed since the last
    time, the result of that time is taken. Two processes have half of the other files each.

    Args:
        core: patterns of its files, as in `worker/services/token*.py`.
        results: the file that keeps the results from one time to the next.
    """
    coverage = Coverage()
    coverage.load()
    data = coverage.get_data()
    keys = {file: _key(file, data) for file in sorted(data.measured_files())}
    known = _known(results)
    new = [file for file, key in keys.items() if key not in known]
    if new:
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            for half in pool.map(_summaries, (new[::2], new[1::2])):
                known |= {keys[file]: numbers for file, numbers in half.items()}
    found = {os.path.relpath(file): Covered(*known[key]) for file, key in keys.items() if key in known}
    _keep(results, {key: known[key] for key in keys.values() if key in known})
    inner = [one for name, one in found.items() if any(fnmatch(name, pattern) for pattern in core)]
    return _sum(found.values()), _sum(inner)


def _key(file: str, data: CoverageData) -> str:
    digest = hashlib.sha256(f"{version} {file} {sorted(data.arcs(file) or ())}".encode())
    for read in (Path(file), Path("pyproject.toml")):
        digest.update(read.read_bytes() if read.exists() else b"")
    return digest.hexdigest()


def _known(results: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads(results.read_bytes()))
    except (OSError, ValueError):  # the first time, or it was cut off
        return {}


def _keep(results: Path, known: Mapping[str, list[int]]) -> None:
    results.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=results.parent, delete=False) as file:
        json.dump(known, file)
    Path(file.name).replace(results)


def _summaries(files: list[str]) -> dict[str, list[int]]:
    """How much of each file has run, and how much could have run."""
    if not files:
        return {}
    coverage = Coverage()
    coverage.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        coverage.json_report(morfs=files, outfile=report.name)
        told = json.loads(Path(report.name).read_bytes())["files"]
    return {str(Path(name).absolute()): _numbers(one["summary"]) for name, one in told.items()}


def _numbers(summary: Mapping[str, Any]) -> list[int]:
    return [
        summary["covered_lines"] + summary["covered_branches"],
        summary["num_statements"] + summary["num_branches"],
    ]


def _sum(parts: Collection[Covered]) -> Covered:
    return Covered(run=sum(one.run for one in parts), all=sum(one.all for one in parts))
