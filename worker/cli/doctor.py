"""`dashtam doctor`: checks the configuration, servers and processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.ask import ask
from worker.cli.exits import Failed
from worker.cli.output import AsJson, pairs, plain, print_json, say, show
from worker.errors import Unavailable

if TYPE_CHECKING:
    from worker.services.findings import Finding


def doctor(
    config: Annotated[
        bool, typer.Option("--config", help="Print the effective configuration, secrets masked.")
    ] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Only whether Postgres, Redis and the broker answer; for probes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check configuration, connections, schema, clocks, queues and workers; a fix for each failure.

    Exits 1 when a check fails; with --ready, 4 when a server does not answer.

    [bold]Examples[/]

    dashtam doctor

    dashtam doctor --config

    dashtam doctor --ready
    """
    if ready:
        _require_servers(as_json=as_json)
        return
    if config:
        from worker.services.health import effective

        show(effective(), as_json=as_json, render=lambda found: pairs([(k, plain(v)) for k, v in found.items()]))
        return
    findings: list[Finding] = []
    for finding in run_checks():
        findings.append(finding)
        if not as_json:
            say(_line(finding))
    if as_json:
        print_json(findings)
    bad = [finding.check for finding in findings if not finding.ok and not finding.skipped]
    if bad:
        raise Failed(f"checks that failed: {', '.join(bad)}")


def _require_servers(*, as_json: bool) -> None:
    from worker.services import health
    from worker.tasks import send

    found = ask(health.readiness, send)
    checks = {name: trouble or "ok" for name, trouble in found.items()}
    show(checks, as_json=as_json, render=lambda checks: pairs([(name, plain(said)) for name, said in checks.items()]))
    if away := [name for name, trouble in found.items() if trouble]:
        raise Unavailable(f"not ready: {', '.join(away)}")


def run_checks() -> Iterator[Finding]:
    """Runs every check, one after the other."""
    from worker.services import health
    from worker.tasks import send

    first = health.configuration()
    yield first
    failed: set[str] = set()
    for name in health.CHECKS if first.ok else ():
        for finding in ask(health.check, name, send, failed):
            if not finding.ok:
                failed.add(name)
            yield finding


def _line(finding: Finding) -> str:
    mark = "[red]bad [/]"
    if finding.ok:
        mark = "[yellow]note[/]" if finding.mend else "[green]ok  [/]"
    elif finding.skipped:
        mark = "[dim]-   [/]"
    mend = f" [bold]→ {plain(finding.mend)}[/]" if finding.mend else ""
    return f"{mark} {finding.check:<16} {plain(finding.found)}{mend}"
