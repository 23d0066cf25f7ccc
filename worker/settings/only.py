"""`python -m worker.settings.only PROGRAM COMMAND…`: starts a command with only the variables that its program reads.

PROGRAM is `beat`, `flower` or `exporter`. The environment and the `.env` file of a host usually contain all variables,
also keys and credentials. The command gets only those of its program, and those that every process has, such as PATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import BaseModel

from worker.settings import EnvironmentSettings, ExporterSettings, FlowerSettings, QueueSettings
from worker.settings.secret_files import is_secret

PROGRAMS: Mapping[str, type[EnvironmentSettings]] = {
    "beat": QueueSettings,
    "flower": FlowerSettings,
    "exporter": ExporterSettings,
}
_EVERYBODY_S = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TERM", "NO_COLOR", "VIRTUAL_ENV"}
_EVERYBODY_S_PREFIXES = ("LC_", "PYTHON", "SSL_CERT_", "COVERAGE_")


def variables_of(settings: type[BaseModel]) -> set[str]:
    """Every variable from which these settings are read."""
    found, prefix = set(), settings.model_config.get("env_prefix") or ""
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        found |= {variable, f"{variable}_FILE"} if is_secret(field) else {variable}
    return found


def environment_of(program: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a program, chosen from this process's environment and its `.env` file."""
    own = variables_of(PROGRAMS[program])
    file = Path(environment.get("DASHTAM_ENV_FILE", ".env"))
    written = {name: value for name, value in dotenv_values(file).items() if value is not None and name in own}
    kept = {
        name: value
        for name, value in environment.items()
        if name in own | _EVERYBODY_S or name.startswith(_EVERYBODY_S_PREFIXES)
    }
    # If the environment sets a secret, as `X` or as `X_FILE`, neither of the two is taken from `.env`.
    written = {
        name: value
        for name, value in written.items()
        if f"{name}_FILE" not in kept and name.removesuffix("_FILE") not in kept
    }
    return {**written, **kept, "DASHTAM_ENV_FILE": os.devnull}


def main() -> None:
    """Replaces this process by the command."""
    if len(sys.argv) < 3 or sys.argv[1] not in PROGRAMS:
        sys.exit(f"usage: python -m worker.settings.only {'|'.join(PROGRAMS)} COMMAND [ARGUMENT…]")
    program, *command = sys.argv[1:]
    os.execvpe(command[0], command, environment_of(program, os.environ))  # noqa: S606 - the caller's own command


if __name__ == "__main__":
    main()
