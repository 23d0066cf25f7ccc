from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.unit.cli.test_explain import COMPLETED, PROVIDER
from worker.cli.run.cycle import keeps_ending
from worker.cli.run.demo import LOGINS, Story
from worker.cli.run.report import render, summary
from worker.devstack import ProcessState, ProcessStatus
from worker.models.fleet import Stored

COUNTS = Stored(accounts=2, transactions=300, holdings=17)


def _story(**values: object) -> Story:
    story = Story(
        LOGINS[0], PROVIDER, refreshable=True, refreshed=1, runs=[COMPLETED], stored=COUNTS, served=COUNTS, books=COUNTS
    )
    for name, value in values.items():
        setattr(story, name, value)
    return story


def _missing(story: Story) -> list[str]:
    result = summary([story], seconds=9.87, restarts={})
    assert result["ok"] is not bool(result["missing"])
    return [what.removeprefix(f"{PROVIDER.alias}: ") for what in result["missing"]]


def test_a_whole_cycle_is_ok() -> None:
    result = summary([_story()], seconds=9.87, restarts={"worker-sync": 1})

    assert result["ok"]
    assert result["seconds"] == 9.9
    assert result["rows"] == {"added": 5, "changed": 1, "unchanged": 40, "removed": 0, "quarantined": 0}
    assert result["restarts"] == {"worker-sync": 1}


def test_a_token_that_was_not_refreshed_is_named() -> None:
    assert _missing(_story(refreshed=0)) == ["no scheduled task has refreshed its token"]


def test_an_integration_without_refresh_needs_none() -> None:
    assert _missing(_story(refreshed=0, refreshable=False)) == []


def test_a_provider_that_was_not_synced_is_named() -> None:
    assert _missing(_story(runs=[])) == ["no scheduled task has synced it"]


def test_a_sync_that_did_not_complete_is_named_with_its_reason() -> None:
    partial = replace(COMPLETED, status="partial", error_reason="one account is gone")

    assert _missing(_story(runs=[partial])) == ["its last sync is partial (one account is gone)"]


def test_a_provider_that_needs_its_user_is_named() -> None:
    provider = replace(PROVIDER, status="needs_reauth", status_reason="lost_rotation")

    assert _missing(_story(provider=provider)) == ["it is needs_reauth (lost_rotation)"]


def test_rows_that_differ_from_the_books_are_named() -> None:
    assert _missing(_story(stored=replace(COUNTS, transactions=299))) == [
        "299 transactions are stored, the provider's books hold 300"
    ]


def test_rows_that_differ_from_what_was_served_are_named() -> None:
    assert _missing(_story(served=replace(COUNTS, holdings=16))) == ["17 holdings are stored, the provider served 16"]


def test_a_sync_that_went_on_from_a_cursor_is_not_held_against_what_was_served() -> None:
    resumed = replace(COMPLETED, cursor_before={"transactions": "x"})

    assert _missing(_story(runs=[resumed], served=Stored())) == []


def test_the_summary_for_people_names_what_did_not_happen() -> None:
    out = io.StringIO()

    Console(file=out, width=200).print(render(summary([_story(runs=[])], seconds=1, restarts={})))

    assert "did not happen: Home: no scheduled task has synced it" in out.getvalue()


def test_a_process_that_does_not_work_fails_a_cycle_that_is_whole_otherwise() -> None:
    result = summary([_story()], seconds=1, restarts={"flower": 3}, troubles=["flower keeps ending"])

    assert (result["ok"], result["missing"]) == (False, ["flower keeps ending"])


@pytest.mark.parametrize(
    ("state", "restarts", "bad"),
    [("running", 0, False), ("running", 1, False), ("running", 2, True), ("starting", 2, True), ("backoff", 0, True)],
)
def test_a_process_may_be_started_again_once(state: str, restarts: int, bad: bool) -> None:
    process = ProcessStatus("flower", ProcessState(state), 17, restarts, 1.0, 1)

    assert keeps_ending(process) is bad
