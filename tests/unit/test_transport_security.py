"""Rules about the way out, read from the code itself: TLS is always verified, and few files may speak to a network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import ROOT

FILES = sorted((ROOT / "worker").rglob("*.py")) + sorted((ROOT / "schedules").rglob("*.py"))
# Names that exist to weaken TLS or to follow a provider elsewhere, and the values that make an argument do so.
WEAK_NAMES = {"CERT_NONE", "CERT_OPTIONAL", "_create_unverified_context", "disable_warnings"}
WEAK_ARGUMENTS = {
    "verify": False,
    "ssl": False,
    "verify_ssl": False,
    "check_hostname": False,
    "follow_redirects": True,
    "allow_redirects": True,
    "trust_env": True,
}
NETWORK = {"aiohttp", "httpx", "requests", "smtplib", "socket", "urllib.request", "http.client"}
MAY_SPEAK = (
    "worker/integrations/",  # to providers and to the operator's webhook, through one origin each
    "worker/services/notices/channels.py",  # e-mail
    "worker/sandbox/",
    "worker/devstack/",
    "worker/cli/run/",  # to the sandbox on this machine
    "worker/process/ports.py",  # tries whether a port of this host is free
    "worker/telemetry/metric_files.py",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def weaknesses(source: str) -> Iterator[str]:
    if not any(word in source for word in (*WEAK_NAMES, *WEAK_ARGUMENTS)):
        return  # nothing to parse for
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in WEAK_NAMES:
                yield f"{node.lineno}: {name}"
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and node.arg in WEAK_ARGUMENTS:
            yield from [f"{node.value.lineno}: {node.arg}"] if node.value.value is WEAK_ARGUMENTS[node.arg] else []
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is False:
            targets = [target.attr for target in node.targets if isinstance(target, ast.Attribute)]
            if "check_hostname" in targets:
                yield f"{node.lineno}: check_hostname = False"


def imported(source: str) -> set[str]:
    names: set[str] = set()
    if not any(name.partition(".")[0] in source for name in NETWORK):
        return names
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in NETWORK or name.partition(".")[0] in NETWORK}


@pytest.mark.deep
def test_tls_is_verified_and_redirects_are_not_followed_anywhere() -> None:
    assert {name_of(path): lines for path in FILES if (lines := list(weaknesses(path.read_text())))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "httpx.AsyncClient(verify=False)",
        "aiohttp.TCPConnector(ssl=False)",
        "context.check_hostname = False",
        "context.verify_mode = ssl.CERT_NONE",
        "ssl._create_unverified_context()",
        "session.request('GET', url, allow_redirects=True)",
    ],
)
def test_every_way_to_weaken_it_would_be_found(source: str) -> None:
    assert list(weaknesses(source))


@pytest.mark.deep
def test_only_few_files_speak_to_a_network() -> None:
    others = [path for path in FILES if not name_of(path).startswith(MAY_SPEAK)]

    assert {name_of(path): found for path in others if (found := imported(path.read_text()))} == {}
