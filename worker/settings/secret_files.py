"""Reads settings from files: the file named by `X_FILE` for a secret `X`, and the files in `CREDENTIALS_DIR`."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from worker.errors import ConfigurationError

CREDENTIALS_DIR = "CREDENTIALS_DIR"


class SecretFileSource(PydanticBaseSettingsSource):
    """Reads secret `X` from the file that the variable `X_FILE` names, unless an earlier source has given it.

    Args:
        settings_cls: the settings class with the secrets.
        variables: the variables of one place, by their names in capital letters.
        place: the name of that place in errors.

    Raises:
        ConfigurationError: `X` is also set in the same place, or the file is missing, empty, a directory, not UTF-8
            text, or readable by everyone.
    """

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str | None], place: str) -> None:
        super().__init__(settings_cls)
        self._variables = variables
        self._place = place

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See pydantic-settings."""
        variable = f"{self.config.get('env_prefix') or ''}{field_name}".upper()
        path = self._variables.get(f"{variable}_FILE") if is_secret(field) else None
        if path and self._variables.get(variable):
            raise ConfigurationError(f"{variable}: {self._place} sets {variable}_FILE, too; take out one of them")
        if not path or field_name in self.current_state:
            return None, field_name, False
        return _read_secret(f"{variable}_FILE", Path(path)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All secrets that are given in files."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class CredentialsDirectorySource(PydanticBaseSettingsSource):
    """Reads any variable from the file with its name in lower case in the directory that `CREDENTIALS_DIR` names.

    A file that is missing or empty is ignored.

    Args:
        settings_cls: the settings class with the variables.
        environment: the environment of this process.

    Raises:
        ConfigurationError: a file cannot be read, is not UTF-8 text, or is readable by everyone.
    """

    def __init__(self, settings_cls: type[BaseSettings], environment: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._directory = environment.get(CREDENTIALS_DIR)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See pydantic-settings."""
        name = str(field.validation_alias or f"{self.config.get('env_prefix') or ''}{field_name}").lower()
        path = Path(self._directory or "", name)
        if not self._directory or field_name in self.current_state or not path.is_file() or not path.stat().st_size:
            return None, field_name, False
        return _read_secret(f"{CREDENTIALS_DIR}/{name}", path), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All variables that have a file."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting is a secret: secrets are never shown and can be read from a file."""
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def _read_secret(variable: str, path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigurationError(f"{variable}: it names a directory; name the file in it")
        if path.stat().st_mode & stat.S_IROTH:
            raise ConfigurationError(f"{variable}: the file is readable by everyone; run chmod o-r on it")
        value = path.read_text(encoding="utf-8-sig").strip()  # some editors write a byte order mark at the beginning
    except OSError as error:
        raise ConfigurationError(f"{variable}: the file cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable}: the file is not UTF-8 text; write it anew") from None
    if not value:
        raise ConfigurationError(f"{variable}: the file is empty")
    return value
