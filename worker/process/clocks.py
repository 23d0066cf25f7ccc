"""Time that passes on this machine, whatever its clock is set to."""

from __future__ import annotations

import time

# Linux stops CLOCK_MONOTONIC, which is Python's own, while the machine is suspended; leases go on meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds since some fixed moment, those included in which the machine was suspended."""
    return time.clock_gettime(_CLOCK)
