"""Checks of this host: room on its disk, and files with token answers that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

from worker.services.context import Context
from worker.services.findings import Finding

_FREE_BYTES_MIN = 1_000_000_000
UNREADABLE = ".unreadable"
"""Suffix of spool files that could not be read."""


def spool_directory(runtime: Context) -> Path:
    """This host's directory for answers that could not be stored anywhere else; it may not exist yet."""
    return runtime.settings.home / "spool"


async def disk(runtime: Context, _: object) -> Finding:
    """Whether there is room under the home."""
    home = runtime.settings.home.absolute()
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    if free >= _FREE_BYTES_MIN:
        return Finding("disk", True, f"{free / 1e9:.0f} GB free under the home")
    return Finding("disk", False, f"{free / 1e9:.1f} GB free under the home", "make room: the token spool needs it")


async def spool(runtime: Context, _: object) -> Finding:
    """Whether every file with token answers can be read."""
    waiting = list(spool_directory(runtime).glob(f"*{UNREADABLE}"))
    if not waiting:
        return Finding("spool", True, "every file can be read")
    file = waiting[0]
    mend = f"make it readable for the worker, then: mv {file} {file.with_suffix('.json')}"
    return Finding("spool", False, f"{len(waiting)} files with token answers cannot be read, {file.name} first", mend)
