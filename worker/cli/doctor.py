"""`dashtam doctor`."""

from __future__ import annotations

from worker.cli.output import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Check."""
    raise NotImplementedError
