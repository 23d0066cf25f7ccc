"""A clock that measures elapsed time and does not depend on the machine's time of day."""

from __future__ import annotations

import time

# On Linux, CLOCK_MONOTONIC, which Python uses, stops while the machine is suspended; leases continue to run out.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds since some fixed moment, including the time in which the machine was suspended."""
    return time.clock_gettime(_CLOCK)
