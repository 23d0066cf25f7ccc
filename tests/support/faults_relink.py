"""Links another login of the sandbox under an alias that is in use, by the command that users have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from tests.support.sandbox import SandboxAdmin
from worker.integrations.registry import REGISTRY

_SECONDS = 120
_DEADLINES = {"HTTP_TOTAL_SECONDS": "30", "LEASE_SECONDS": "45"}
"""As in production: a person waits, and a token for one exchange cannot be given again after a deadline."""


def relink(
    sandbox: SandboxAdmin,
    provider_key: str,
    login: str,
    *,
    alias: str,
    user: UUID,
    environment: dict[str, str],
    asked: Sequence[str] = (),
) -> str:
    """Runs `dashtam link` to its end; returns what it complained of, or nothing.

    `asked` is what the user enters before the consent, line by line.
    """
    argv = [sys.executable, "-m", "worker.cli", "link", provider_key, "--user", str(user), "--alias", alias]
    process = subprocess.Popen(
        argv,
        env=os.environ | environment | _DEADLINES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.writelines(f"{line}\n" for line in asked)
    process.stdin.flush()
    address = ""
    if REGISTRY[provider_key].link_kind.redirects:  # the command says first where the user is to consent
        address = next((line for line in process.stderr if line.startswith(("http://", "https://"))), "")
    form = sandbox.link(login, **dict(parse_qsl(urlsplit(address.strip()).query)))
    answer = "\n".join(form.values())
    _, complaints = process.communicate(f"{answer}\n", timeout=_SECONDS)
    return complaints if process.returncode else ""
