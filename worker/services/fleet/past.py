"""Finds a run, a failure or a quarantined record by the beginning of its id. They raise what `lookup.by_id` raises."""

from __future__ import annotations

from worker.crud.database import OpenTransaction
from worker.crud.fleet import history
from worker.crud.sync import quarantine
from worker.models.fleet import Failure, QuarantineEntry, Run
from worker.services.fleet.lookup import by_id


def run(session: OpenTransaction, given: str) -> Run:
    """The one run that `given` names."""
    return by_id(session, given, "run", "dashtam runs", history.runs_between)


def failure(session: OpenTransaction, given: str) -> Failure:
    """The one dead letter that `given` names."""
    return by_id(session, given, "failure", "dashtam failures", history.failures_between)


def entry(session: OpenTransaction, given: str) -> QuarantineEntry:
    """The one quarantined record that `given` names."""
    return by_id(session, given, "quarantine entry", "dashtam quarantine", quarantine.entries_between)
