"""`make soak MINUTES=20`: a steady load of refreshes and syncs, with restarts, over the fault suite's world.

Every round the books move and everything falls due; every twentieth round the second worker is killed and started
again, while the first lives through it all. What must stay flat is sampled each round: memory of every process,
Postgres connections, queue depth, the size of what is rewritten. The report is docs/soak.md and docs/images/soak.svg.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.environment import ROOT, isolate, new_keys
from tests.support.faults_processes import kill
from tests.support.faults_world import World

_RESTART_EVERY = 20
_WARM_SHARE = 0.25
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures at one moment, by name."""

    seconds: float
    figures: dict[str, float]


def main() -> int:
    """Runs the soak and writes the report; 1 when something grew."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "soak.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dashtam-soak-") as directory:
        isolate(Path(directory))
        os.environ["ENCRYPTION_KEYS"] = new_keys("soak")
        with World.session(Path(directory)) as world:
            samples, restarts = soak(world, seconds=given.minutes * 60)
            world.assert_log_is_clean()
    growing = [row[0] for row in table(samples) if row[-1]]
    write_report(given.report, samples, restarts=restarts)
    _say(f"{len(samples)} rounds; grew: {', '.join(growing) or 'nothing'}; report in {given.report.name}")
    return 1 if growing else 0


def soak(world: World, *, seconds: float) -> tuple[list[Sample], int]:
    """Rounds for so many seconds; what was measured, and how often a worker was killed."""
    world.begin()
    begun = time.monotonic()
    samples: list[Sample] = []
    restarts = 0
    while time.monotonic() - begun < seconds:
        if len(samples) % _RESTART_EVERY == _RESTART_EVERY - 1:
            kill(world.workers[1])
            world.workers_of_the_session()
            restarts += 1
        world.moves_on()
        world.settle(supervised=True)
        samples.append(Sample(time.monotonic() - begun, measure(world)))
        _say(f"round {len(samples)} after {samples[-1].seconds:.0f} s")
    return samples, restarts


def measure(world: World) -> dict[str, float]:
    """The figures now."""
    figures: dict[str, float] = {}
    for name, pid in (
        *((f"worker {worker.name}", worker.process.pid) for worker in world.workers),
        ("beat", world.beat.pid),
    ):
        figures[f"{name}: memory of all its processes, MB"] = sum(_resident_mb(each) for each in (pid, *_children(pid)))
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dashtam'"
    figures["Postgres connections"] = float(world.query(sql)[0][0])
    queues = ("refresh", "sync", "upkeep")
    figures["messages waiting"] = float(sum(world.servers.redis.llen(queue) for queue in queues))
    figures["messages not acknowledged"] = float(world.servers.redis.hlen("unacked"))
    figures["Redis keys"] = float(world.servers.redis.dbsize())
    sizes = dict(
        world.query("SELECT relname, pg_total_relation_size(relid) / 1024.0 FROM pg_stat_user_tables")  # type: ignore[arg-type]
    )
    for name in ("providers", "provider_tokens", "sync_cursors", "accounts", "holdings"):
        figures[f"table {name}, kB"] = float(sizes[name])
    return figures


def table(samples: Sequence[Sample]) -> list[tuple[str, float, float, float, float, bool]]:
    """Name, first, median of the early and of the late rounds, greatest, and whether it grew.

    The first quarter is the warming up. It grew when the last quarter's median exceeds the second quarter's by more
    than a quarter and by more than what two samples differ anyway.
    """
    rows = []
    quarter = max(1, int(len(samples) * _WARM_SHARE))
    for name in samples[0].figures:
        values = [sample.figures[name] for sample in samples]
        early, late = _median(values[quarter : 2 * quarter] or values), _median(values[-quarter:])
        rows.append((name, values[0], early, late, max(values), late > early * 1.25 and late - early > 64))
    return rows


def write_report(path: Path, samples: Sequence[Sample], *, restarts: int) -> None:
    """The table and the plot."""
    minutes = samples[-1].seconds / 60
    lines = [
        "# Soak",
        "",
        f"{minutes:.0f} minutes, {len(samples)} rounds, the second worker killed {restarts} times.",
        "Each round, five logins fall due at once: three refreshes and five syncs. Made by `make soak`.",
        "",
        "| figure | first | second quarter | last quarter | greatest | flat |",
        "|---|---:|---:|---:|---:|---|",
        *(
            f"| {name} | {first:.0f} | {early:.0f} | {late:.0f} | {greatest:.0f} | {'no' if grew else 'yes'} |"
            for name, first, early, late, greatest, grew in table(samples)
        ),
        "",
        "Quarters are medians. Memory counts shared pages once for each process.",
        "",
        "![Memory of the workers over the soak](images/soak.svg)",
        "",
    ]
    path.write_text("\n".join(lines))
    (path.parent / "images").mkdir(exist_ok=True)
    (path.parent / "images" / "soak.svg").write_text(plot(samples))


def plot(samples: Sequence[Sample]) -> str:
    """Memory over time as an SVG."""
    names = [name for name in samples[0].figures if "memory" in name]
    greatest = max(sample.figures[name] for sample in samples for name in names) * 1.1
    longest = samples[-1].seconds
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 300" font-family="sans-serif" font-size="12">',
        '<rect width="720" height="300" fill="white"/>',
        '<path d="M50 20V260H700" fill="none" stroke="#888"/>',
        f'<text x="10" y="28">{greatest:.0f} MB</text><text x="30" y="264">0</text>',
        f'<text x="640" y="278">{longest / 60:.0f} min</text>',
    ]
    for place, name in enumerate(names):
        colour = _COLOURS[place % len(_COLOURS)]
        points = " ".join(
            f"{50 + 650 * sample.seconds / longest:.1f},{260 - 240 * sample.figures[name] / greatest:.1f}"
            for sample in samples
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts.append(f'<text x="{60 + 160 * place}" y="294" fill="{colour}">{name.partition(":")[0]}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(next(lines, "VmRSS: 0").split()[1]) / 1024  # a child that has just ended has none


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
