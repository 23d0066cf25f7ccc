"""`dashtam doctor`: whether everything is as it should be."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import SecretStr

from worker.cli.checks import Finding, run_checks
from worker.cli.exits import Failed
from worker.cli.output import AsJson, pairs, plain, print_json, say, show
from worker.integrations.registry import REGISTRY
from worker.settings import EnvironmentSettings, get_settings, load


def doctor(
    config: Annotated[
        bool, typer.Option("--config", help="Print the effective configuration, secrets masked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check configuration, connections, schema, clocks, queues and workers; a mend for each failure.

    Exits 1 when a check fails.

    [bold]Examples[/]

    dashtam doctor

    dashtam doctor --config
    """
    if config:
        show(effective(), as_json=as_json, render=lambda found: pairs([(k, plain(v)) for k, v in found.items()]))
        return
    findings: list[Finding] = []
    for finding in run_checks():
        findings.append(finding)
        if not as_json:
            say(_line(finding))
    if as_json:
        print_json(findings)
    bad = [finding.check for finding in findings if not finding.ok]
    if bad:
        raise Failed(f"not as it should be: {', '.join(bad)}")


def _line(finding: Finding) -> str:
    mark = "[green]ok  [/]" if finding.ok else "[red]bad [/]"
    mend = f" [bold]→ {plain(finding.mend)}[/]" if finding.mend else ""
    return f"{mark} {finding.check:<16} {plain(finding.found)}{mend}"


def effective() -> dict[str, Any]:
    """Every variable with its effective value; of secrets only whether they are set.

    Raises:
        ConfigurationError: the configuration is incomplete or unsafe.
    """
    settings = get_settings()
    found = _variables(settings)
    for key in settings.enabled_integrations:
        if key in REGISTRY:
            found |= _variables(load(REGISTRY[key].settings_class))
    return found


def _variables(settings: EnvironmentSettings) -> dict[str, Any]:
    prefix = settings.model_config.get("env_prefix") or ""
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        value = getattr(settings, name)
        found[variable] = "set, not shown" if isinstance(value, SecretStr) else value
    return found
