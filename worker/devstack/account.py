"""The user that runs Postgres: our own, or an unprivileged one if we are root (Postgres refuses to run as root)."""

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
    """The keyword arguments of `subprocess.Popen` that change the user; empty if the user stays the same."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A user that servers run as.

    Attributes:
        switch: whether a child process must change to this user (because we are root and the user is not).
    """

    name: str
    uid: int
    gid: int
    switch: bool

    def popen_arguments(self) -> SwitchUser:
        """Arguments for `subprocess` that make a child run as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def run(self, argv: Sequence[str], *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end as this account, with a minimal environment, and captures its output."""
        return subprocess.run(
            list(argv),
            cwd="/",  # the account may have no access to the caller's directory
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
        """Whether the program runs and exits with 0 as this account. Only running it shows that the rights suffice."""
        try:
            return self.run(argv, timeout=60).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    def can_enter(self, directory: Path) -> bool:
        """Whether this account can reach the directory through all its parents."""
        return self.can_run(["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)])

    def give(self, path: Path) -> None:
        """Makes this account the owner of a path."""
        if self.switch:
            os.chown(path, self.uid, self.gid)


def server_environment() -> dict[str, str]:
    """The environment variables that a server needs. The others are not passed on, because they may contain secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def server_account() -> Account:
    """The account to run Postgres as.

    Raises:
        DevstackError: we are root and cannot change to any unprivileged user.
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
