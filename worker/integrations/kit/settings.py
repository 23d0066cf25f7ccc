"""The environment variables of an integration."""

from __future__ import annotations

from pydantic import field_validator

from worker.errors import ConfigurationError
from worker.integrations.kit.http import check_base_url
from worker.settings import EnvironmentSettings


def in_words(text: str) -> list[str]:
    """The words of a setting, which are separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


class IntegrationSettings(EnvironmentSettings):
    """This application's registration at a provider; each integration has its own subclass with its `env_prefix`."""

    base_url: str
    """The address of the provider's API: https, or http on this machine."""

    @field_validator("base_url")
    @classmethod
    def _https(cls, value: str) -> str:
        try:
            check_base_url(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value
