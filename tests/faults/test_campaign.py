"""Random faults at random moments. CI tells one short script; `make test-chaos` as many as there is time for."""

from __future__ import annotations

import os
import time

import pytest

from tests.support.faults_campaign import make_script, shrink, tell
from tests.support.faults_world import World

SEED = int(os.environ.get("CHAOS_SEED", "20250314"))
MINUTES = float(os.environ.get("CHAOS_MINUTES", "0"))
SCRIPT_SECONDS = float(os.environ.get("CHAOS_SCRIPT_SECONDS", "15"))


@pytest.mark.long
def test_random_faults_break_no_promise(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)  # noqa: T201 - the seed is what a failure is repeated with

    deadline = time.monotonic() + 60 * MINUTES
    seed = SEED
    while seed == SEED or time.monotonic() < deadline:
        script = make_script(seed, SCRIPT_SECONDS)
        begun = time.monotonic()
        broken = tell(world, script)
        seconds = time.monotonic() - begun
        say(f"chaos: seed {seed}, {len(script)} events, {seconds:.0f} s: {broken or 'all promises held'}")
        if broken is not None:
            shortest = shrink(world, script, seconds=min(600.0, 60 * MINUTES), say=say)
            told = "\n".join(map(str, shortest))
            pytest.fail(f"seed {seed} breaks a promise: {broken}\nthe shortest script that does:\n{told}")
        seed += 1
