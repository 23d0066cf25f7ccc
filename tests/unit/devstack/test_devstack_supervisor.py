"""The supervisor's arithmetic; real processes are in the integration tests."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from worker.devstack import ProcessSpec, Supervisor
from worker.devstack.child import RestartPolicy
from worker.devstack.supervisor import _exit_words, _prefixes

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_waits_double_up_to_their_cap() -> None:
    policy = RestartPolicy(proven=True)

    waits = [policy.ended(5.0, was_ready=False) for _ in range(7)]

    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_health_starts_the_waits_over() -> None:
    policy = RestartPolicy()
    for _ in range(4):
        policy.ended(1.0, was_ready=False)

    assert policy.ended(60.0, was_ready=False) == 1


def test_a_process_that_never_came_up_is_hopeless_at_its_fifth_end() -> None:
    policy = RestartPolicy()
    hopeless = []

    for _ in range(5):
        policy.ended(0.1, was_ready=False)
        hopeless.append(policy.hopeless)

    assert hopeless == [False, False, False, False, True]


@pytest.mark.parametrize(("lived", "was_ready"), [(10.0, False), (0.5, True)])
def test_a_process_that_once_came_up_is_never_hopeless(lived: float, was_ready: bool) -> None:
    policy = RestartPolicy()
    policy.ended(lived, was_ready=was_ready)

    for _ in range(20):
        policy.ended(0.1, was_ready=False)

    assert not policy.hopeless


def test_two_processes_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two processes are named beat"):
        Supervisor([ProcessSpec("beat", ["x"]), ProcessSpec("beat", ["y"])], log_dir=tmp_path)


def test_a_process_after_an_unlisted_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="flower comes after beat"):
        Supervisor([ProcessSpec("flower", ["x"], after=["beat"]), ProcessSpec("beat", ["y"])], log_dir=tmp_path)


def test_prefixes_are_plain_where_no_terminal_shows_them() -> None:
    assert dict(_prefixes(["beat", "refresh"], io.StringIO())) == {"beat": "beat    | ", "refresh": "refresh | "}


def test_prefixes_are_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert dict(_prefixes(["beat"], Terminal()))["beat"] == "\x1b[36mbeat | \x1b[0m"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert dict(_prefixes(["beat"], Terminal()))["beat"] == "beat | "


def test_exit_words_name_the_signal() -> None:
    assert _exit_words(-9) == "killed by SIGKILL"
    assert _exit_words(3) == "exit code 3"
