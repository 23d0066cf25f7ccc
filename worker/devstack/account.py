"""The user that runs Postgres: ourselves, or an unprivileged one when we are root (Postgres refuses root)."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from worker.devstack.errors import DevstackError

UNPRIVILEGED = ("nobody", "daemon", "postgres")


class SwitchUser(TypedDict, total=False):
    """The keyword arguments of `subprocess.Popen` that change the user; empty when none is needed."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A user that servers run as.

    Attributes:
        switch: whether a child has to change to this user (we are root and it is not).
    """

    name: str
    uid: int
    gid: int
    switch: bool

    def popen_arguments(self) -> SwitchUser:
        """Arguments for `subprocess` that make a child run as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def run(self, argv: Sequence[str], *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as this account, with a bare environment and its output captured."""
        return subprocess.run(
            list(argv),
            cwd="/",  # the caller's directory may be closed to the account
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            **self.popen_arguments(),
        )

    def can_run(self, argv: Sequence[str]) -> bool:
        """Whether the program runs and ends well as this account: the only honest test of its rights."""
        try:
            return self.run(argv, timeout=60).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    def can_enter(self, directory: Path) -> bool:
        """Whether this account can reach the directory through all its parents."""
        return self.can_run(["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)])

    def give(self, path: Path) -> None:
        """Make this account the owner of a path."""
        if self.switch:
            os.chown(path, self.uid, self.gid)


def server_environment() -> dict[str, str]:
    """What a server needs of the environment; our own may hold secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def server_account() -> Account:
    """The account to run Postgres as.

    Raises:
        DevstackError: we are root and may not become any unprivileged user.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(name=f"uid {uid}", uid=uid, gid=os.getegid(), switch=False)
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, switch=True)
        if entry.pw_uid != 0 and account.can_run(["/bin/sh", "-c", ":"]):
            return account
    raise DevstackError(
        "Postgres does not run as root, and root here may not become any of the users "
        f"{', '.join(UNPRIVILEGED)}. Run as an ordinary user, or set DATABASE_URL to a server of your own."
    )
