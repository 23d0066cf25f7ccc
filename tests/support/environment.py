"""The settings that tests run with: `.env.test`, and nothing of the developer's own shell."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet

from worker.settings import EnvironmentSettings, Settings
from worker.settings.built_in import built_in_integrations

ROOT = Path(__file__).parents[2]
ENV_FILE = ROOT / ".env.test"
_FOREIGN_PREFIXES = (
    "CREDENTIALS_DIR",
    "DASHTAM_",
    "FLOWER_",
    "OTEL_",
    *(f"{key.upper()}_" for key in built_in_integrations()),
)


def isolate(home: Path) -> None:
    """Makes this process and all that it starts see the tests' settings only.

    Args:
        home: where spool files and the like may go.
    """
    for name in _variables():
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    for name in [name for name in os.environ if name.startswith(_FOREIGN_PREFIXES)]:
        del os.environ[name]
    os.environ["DASHTAM_ENV_FILE"] = str(ENV_FILE)
    os.environ["DASHTAM_HOME"] = str(home)
    os.environ["ENCRYPTION_KEYS"] = new_keys("tests")


def new_keys(*key_ids: str) -> str:
    """A value for ENCRYPTION_KEYS with fresh keys."""
    return ",".join(f"{key_id}:{Fernet.generate_key().decode()}" for key_id in key_ids)


def _variables(settings: type[EnvironmentSettings] = Settings) -> list[str]:
    prefix = settings.model_config.get("env_prefix") or ""
    return [str(field.validation_alias or f"{prefix}{name}").upper() for name, field in settings.model_fields.items()]
