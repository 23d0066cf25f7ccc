"""`.env.example` has every variable, with its true default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.integrations.registry import REGISTRY
from worker.sandbox.__main__ import ADMIN_TOKEN_VARIABLE
from worker.settings import EnvironmentSettings, Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".env.example").read_text()
LISTED = dict(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", TEXT, re.MULTILINE))
CLASSES = (Settings, *(integration.settings_class for integration in REGISTRY.values()))
DEPLOYMENT = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "Procfile"))
ELSEWHERE = {ADMIN_TOKEN_VARIABLE, *re.findall(r"\$\{([A-Z_]+):-", DEPLOYMENT)}


def variables(settings: type[EnvironmentSettings]) -> dict[str, object]:
    """Variable → default."""
    prefix = settings.model_config.get("env_prefix") or ""
    return {
        str(field.validation_alias or f"{prefix}{name}").upper(): field.default
        for name, field in settings.model_fields.items()
    }


def test_it_lists_every_variable_and_no_other() -> None:
    known = {name for settings in CLASSES for name in variables(settings)}

    assert LISTED.keys() == known | ELSEWHERE


@pytest.mark.parametrize("settings", CLASSES)
def test_defaults_are_the_true_ones(settings: type[EnvironmentSettings]) -> None:
    for name, default in variables(settings).items():
        if re.search(rf"^# {name}=", TEXT, re.MULTILINE):
            shown = "" if default in (None, "") else str(default)
            assert LISTED[name].lower() == shown.lower(), name


def test_it_holds_no_secret() -> None:
    secrets = {
        name
        for settings in CLASSES
        for name, field in ((n.upper(), f) for n, f in settings.model_fields.items())
        if field.annotation is SecretStr and not name.endswith("_URL")
    }

    assert secrets
    for name in secrets:
        assert LISTED.get(name, "") == ""
