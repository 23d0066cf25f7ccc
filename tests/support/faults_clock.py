"""`python -m tests.support.faults_clock SECONDS celery-arguments…`: Celery in a process whose clock jumps.

The clock jumps by so many seconds at SIGWINCH, which harms nobody else in the process group; with `@SECONDS` it is
wrong from the start. Only what asks Python for
the time sees it; the monotonic clock goes on as it does on a machine whose time is set.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from types import FrameType

import time_machine


def _jump(seconds: float) -> None:
    time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True).start()
    os.write(2, f"clock set {seconds:+.0f} s\n".encode())


def main() -> None:
    shift = sys.argv[1]
    if shift.startswith("@"):
        _jump(float(shift[1:]))
    else:

        def jump(number: int, frame: FrameType | None) -> None:
            _jump(float(shift))

        signal.signal(signal.SIGWINCH, jump)
    sys.argv[:2] = ["celery"]
    from celery.__main__ import main as celery

    celery()


if __name__ == "__main__":
    main()
