"""The processes that `dashtam run` supervises: sandbox, one worker per queue, beat, Flower and HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Callable

from worker.cli.demo_logins import LOGINS
from worker.cli.run.environment import Demonstration, sandboxed
from worker.devstack import ProcessSpec

SANDBOX = "sandbox"
FLOWER = "flower"
WEB = "web"
_ONLY = (sys.executable, "-m", "worker.settings.only")
_CELERY = (sys.executable, "-m", "celery", "-A", "worker.app")
# The pools are small, which is enough for a demonstration; production sizes are in the Procfile and the compose file.
_POOLS = {"refresh": 1, "sync": 2, "upkeep": 1}
_GRACE_SECONDS = 10.0
_FREE_LOGINS = 2
"""For each provider, so many logins of the sandbox are not linked yet: a person can link them."""


def specs(demo: Demonstration, *, access_seconds: int, live: bool, linked: Callable[[], bool]) -> list[ProcessSpec]:
    """All processes in order of start.

    Args:
        demo: the addresses and files of this `dashtam run`.
        access_seconds: lifetime of the sandbox's access tokens.
        live: whether the sandbox's books change by themselves.
        linked: whether the demo user's providers are linked; workers and beat start after that, so that none of them
            uses tokens of an earlier sandbox.
    """
    port = demo.sandbox_url.rpartition(":")[2]
    sandbox = [sys.executable, "-m", "worker.sandbox", "--port", port, "--access-seconds", str(access_seconds)]
    sandbox += ["--logins", "0"]
    for key in sandboxed():
        known = max((login.number for login in LOGINS if login.provider_key == key), default=0)
        sandbox += ["--logins", f"{key}={known + _FREE_LOGINS}"]
    if live:
        sandbox += ["--live", "--live-seconds", "5"]
    workers = [
        ProcessSpec(
            f"worker-{queue}",
            (
                *_CELERY,
                "worker",
                "--queues",
                queue,
                "--concurrency",
                str(size),
                "--hostname",
                f"{queue}@%h",
                "--without-gossip",
                "--without-mingle",
                "--loglevel",
                "INFO",
            ),
            after=(SANDBOX,),
            grace_s=_GRACE_SECONDS,
        )
        for queue, size in _POOLS.items()
    ]
    return [
        ProcessSpec(SANDBOX, sandbox, ready=linked),
        *workers,
        ProcessSpec(
            "beat", (*_ONLY, "beat", *_CELERY, "beat", "--loglevel", "INFO"), after=(SANDBOX,), grace_s=_GRACE_SECONDS
        ),
        # Flower ends only after its inspections of workers were answered or have timed out.
        ProcessSpec(
            FLOWER,
            (*_ONLY, "flower", *_CELERY, "flower", "--inspect_timeout=1000"),
            after=(SANDBOX,),
            grace_s=_GRACE_SECONDS,
        ),
        ProcessSpec(WEB, (sys.executable, "-m", "worker.web"), after=(SANDBOX,), grace_s=_GRACE_SECONDS),
    ]
