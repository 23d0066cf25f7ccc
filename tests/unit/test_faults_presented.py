"""The reckoning of the fault suite itself: it must see what promise 3 forbids."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.faults_presented import Attempt, reckon


def attempt(
    started: float, status: str, reason: str | None = None, *, seconds: float = 1.0, error: str | None = None
) -> Attempt:
    return Attempt("schwab-1", 1, status, reason, error, started, started + seconds)


def shown(*received: float, token: str = "digest") -> list[dict[str, Any]]:
    return [{"login": "schwab-1", "token": token, "received": at} for at in received]


@pytest.mark.parametrize(
    ("attempts", "requests"),
    [
        pytest.param([attempt(0, "done")], shown(0.1, 0.2), id="twice in one attempt"),
        pytest.param([], shown(0.1), id="without an attempt"),
        pytest.param([attempt(5, "done")], shown(0.1), id="before its attempt"),
        pytest.param([attempt(0, "done"), attempt(5, "done")], shown(0.1, 5.1), id="again after its answer"),
        pytest.param([attempt(0, "sent"), attempt(5, "done")], shown(0.1, 5.1), id="again while it was under way"),
        pytest.param(
            [attempt(0, "unknown"), attempt(5, "unknown"), attempt(10, "done")], shown(0.1, 5.1, 10.1), id="thrice"
        ),
        pytest.param([attempt(0, "not_sent")], shown(0.1), id="although it is said not to have left"),
    ],
)
def test_presentation_that_no_attempt_allows_is_named(attempts: list[Attempt], requests: list[dict[str, Any]]) -> None:
    assert len(reckon(requests, attempts, retries=True, deadline_s=4).wrong) == 1


@pytest.mark.parametrize("status", ["failed", "deferred", "unknown"])
def test_token_may_come_again_after_a_refusal_or_an_unknown_outcome(status: str) -> None:
    account = reckon(shown(0.1, 5.1), [attempt(0, status), attempt(5, "done")], retries=True, deadline_s=4)

    assert account.wrong == []


def test_gateway_s_errors_do_not_use_up_the_one_retry() -> None:
    gateway = [attempt(5 * number, "unknown", error="gateway_error") for number in range(3)]
    attempts = [*gateway, attempt(20, "unknown"), attempt(30, "done")]

    assert reckon(shown(0.1, 5.1, 10.1, 20.1, 30.1), attempts, retries=True, deadline_s=4).wrong == []


@pytest.mark.parametrize("status", ["failed", "deferred"])
def test_answer_that_was_taken_for_a_refusal_is_named(status: str) -> None:
    requests = [request | {"status": 200} for request in shown(0.1, 5.1)]

    account = reckon(requests, [attempt(0, status), attempt(5, "done")], retries=True, deadline_s=4)

    assert len(account.wrong) == 1


def test_call_that_outlasted_its_deadline_is_told_from_one_whose_worker_was_lost() -> None:
    slow, lost = attempt(0, "unknown", "timeout", seconds=4.1), attempt(0, "unknown", "worker_lost", seconds=4.1)
    quick = attempt(0, "unknown", "timeout", seconds=1.0)

    accounts = [
        reckon(shown(0.1, 5.1), [first, attempt(5, "done")], retries=False, deadline_s=4)
        for first in (slow, lost, quick)
    ]

    assert [(len(account.wrong), account.outlasted) for account in accounts] == [(0, [slow]), (1, []), (1, [])]


def test_each_token_is_reckoned_apart() -> None:
    requests = shown(0.1) + shown(5.1, token="next")

    account = reckon(requests, [attempt(0, "done"), attempt(5, "done")], retries=False, deadline_s=4)

    assert account.wrong == []
