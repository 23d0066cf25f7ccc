"""The last line of `make test` says what happened, and the exit code agrees with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.floors import Covered
from tests.support.suite import Half, left_out, verdict

FLOORS = (88.0, 97.0)
ENOUGH = (Covered(884, 1000), Covered(976, 1000))


def half(name: str = "unit, smoke", *, passed: int = 3, failed: int = 0, finished: bool = True, code: int = 0) -> Half:
    made = Half(name)
    made.hear({"collected": passed + failed})
    for number in range(passed):
        made.hear({"outcome": "passed", "name": f"passing {number}"})
    for number in range(failed):
        made.hear({"outcome": "failed", "name": f"failing {number}"})
    if finished:
        made.hear({"finished": code})
    made.exit_code = code
    return made


def test_all_passed() -> None:
    line, code = verdict([half(), half("integration", passed=2)], 27.6, ENOUGH, floors=FLOORS)

    assert line == "5 passed, 0 failed in 28 s, coverage 88.4 % (core 97.6 %)"
    assert code == 0


def test_failed_tests_are_counted() -> None:
    line, code = verdict([half(), half("integration", failed=2, code=1)], 10, ENOUGH, floors=FLOORS)

    assert line == "FAILED: 6 passed, 2 failed in 10 s, coverage 88.4 % (core 97.6 %): 2 failed"
    assert code == 1


@pytest.mark.parametrize(
    ("covered", "told"),
    [
        ((Covered(879, 1000), Covered(976, 1000)), "coverage is below its floor of 88 %"),
        ((Covered(884, 1000), Covered(969, 1000)), "coverage of the core is below its floor of 97 %"),
        (None, "coverage was not measured"),
    ],
)
def test_missed_floor_is_named(covered: tuple[Covered, Covered] | None, told: str) -> None:
    line, code = verdict([half()], 10, covered, floors=FLOORS)

    assert line.startswith("FAILED: 3 passed, 0 failed")
    assert line.endswith(f": {told}")
    assert code == 1


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (half(finished=False, code=-9), "unit, smoke was ended by SIGKILL after 3 tests"),
        (half(finished=False, code=0), "unit, smoke ended with exit code 0 after 3 tests, before its end"),
        (half(finished=True, code=3), "unit, smoke ended with exit code 3 after 3 tests, before its end"),
        (half(finished=True, code=1), "unit, smoke failed outside of its tests"),
    ],
)
def test_session_that_broke_off_is_never_a_success(broken: Half, told: str) -> None:
    line, code = verdict([broken, half("integration")], 10, ENOUGH, floors=FLOORS)

    assert line == f"FAILED: 6 passed, 0 failed in 10 s, coverage 88.4 % (core 97.6 %): {told}"
    assert code == 1


def test_interrupted_run_says_so() -> None:
    line, code = verdict([half(finished=False, code=2)], 4, None, floors=FLOORS, interrupted=True)

    assert line == "FAILED: 3 passed, 0 failed in 4 s: interrupted before the end"
    assert code == 130


def test_run_without_tests_fails() -> None:
    line, code = verdict([half(passed=0, code=5)], 4, ENOUGH, floors=FLOORS)

    assert line.endswith(": no test ran")
    assert code == 1


def test_test_that_fails_in_its_body_and_in_its_teardown_counts_once() -> None:
    made = Half("integration")
    made.hear({"outcome": "failed", "name": "test_a"})
    made.hear({"outcome": "failed", "name": "test_a"})

    assert (made.failed, made.done) == (1, 1)


def test_test_whose_teardown_fails_is_not_a_passed_one() -> None:
    made = Half("integration")
    made.hear({"outcome": "passed", "name": "test_a"})
    made.hear({"outcome": "failed", "name": "test_a"})

    assert (made.count("passed"), made.failed) == (0, 1)


def test_files_that_are_deep_as_a_whole_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import pytest\n\npytestmark = pytest.mark.deep  # why\n")
    (tmp_path / "test_two.py").write_text("import pytest\n\npytestmark = [pytest.mark.deep, pytest.mark.long]\n")
    (tmp_path / "test_three.py").write_text("import pytest\n\n\n@pytest.mark.deep\ndef test_this(): ...\n")

    assert left_out(tmp_path) == [f"--ignore={tmp_path / 'test_one.py'}", f"--ignore={tmp_path / 'test_two.py'}"]
