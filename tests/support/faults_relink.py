"""Links another login of the sandbox under an alias that is in use, by the command that users have."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from tests.support.sandbox import SandboxAdmin

_SECONDS = 120


def relink(
    sandbox: SandboxAdmin,
    provider_key: str,
    login: str,
    *,
    alias: str,
    user: UUID,
    environment: dict[str, str],
) -> str:
    """Runs `dashtam link` to its end; returns what it complained of, or nothing."""
    argv = [sys.executable, "-m", "worker.cli", "link", provider_key, "--user", str(user), "--alias", alias]
    process = subprocess.Popen(
        argv,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    form = sandbox.link(login)
    if "callback_url" in form:  # the command says first where the user is to consent
        told = next((line for line in process.stderr if "state=" in line), "")
        form = sandbox.link(login, **dict(parse_qsl(urlsplit(told.strip()).query)))
    answer = "\n".join(form.values())
    _, complaints = process.communicate(f"{answer}\n", timeout=_SECONDS)
    return complaints if process.returncode else ""
