"""Errors of the devstack."""

from __future__ import annotations

from worker.errors import DashtamError


class DevstackError(DashtamError):
    """A private server or a supervised process could not be started, found or stopped.

    The message says what happened, what was kept and what to do. It never contains a password.
    """
