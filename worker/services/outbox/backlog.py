"""What waits in the outbox, for `dashtam doctor`."""

from __future__ import annotations

from worker.services.context import Context
from worker.services.findings import Finding

LATE_SECONDS = 3600


async def finding(runtime: Context, _: object) -> Finding:
    """Whether hooks of ours were given up, or wait for longer than an hour."""
    from worker.crud.outbox import deliveries  # slow to import, and `dashtam status` does not ask for this

    found = await runtime.db(deliveries.backlog)
    if found.parked:
        what = f"{found.parked} deliveries of our hooks were given up; they are kept for RETAIN_OUTBOX_DAYS"
        mend = f"see why: dashtam hooks list; then send them again: dashtam hooks replay {found.parked_hook}"
        return Finding("outbox", False, what, mend)
    if found.oldest_s > LATE_SECONDS:
        what = (
            f"{found.waiting} deliveries of our hooks wait, the oldest for {found.oldest_s / 3600:.0f} h; all are kept"
        )
        return Finding("outbox", False, what, "see which receiver does not answer: dashtam hooks list")
    return Finding("outbox", True, f"{found.waiting} deliveries of our hooks wait; none was given up")
