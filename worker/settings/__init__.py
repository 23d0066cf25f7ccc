"""Configuration: the only reader of the environment.

Every variable can come from the environment or a `.env` file (`DASHTAM_ENV_FILE` names another); every secret `X` also
from a file named by `X_FILE`, and every variable from a file of its name in `CREDENTIALS_DIR`. An unsafe or incomplete
configuration refuses startup with a `ConfigurationError` that names the variable and never its value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, PositiveInt, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.settings.addresses import is_loopback, postgres_url
from worker.settings.database import DatabaseLimits
from worker.settings.keys import parse_keys
from worker.settings.parts import (
    ExporterPart,
    FlowerPart,
    IntegrationsPart,
    QueuePart,
    RedisPart,
    Seconds,
    WebPart,
    require_tls,
)
from worker.settings.secret_files import CredentialsDirectorySource, SecretFileSource, is_secret
from worker.telemetry.redaction import remember
from worker.text.mail_addresses import for_header, normalised


class EnvironmentSettings(BaseSettings):
    """Base of all settings classes: environment, its secret files, the `.env` file's secret files, that file."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Adds `X_FILE` for every secret `X`, in both places, and the files of `CREDENTIALS_DIR`."""
        in_env_file = dotenv_settings.env_vars if isinstance(dotenv_settings, DotEnvSettingsSource) else {}
        return (
            init_settings,
            env_settings,
            SecretFileSource(settings_cls, os.environ, "the environment"),
            SecretFileSource(
                settings_cls, {name.upper(): value for name, value in in_env_file.items()}, "the .env file"
            ),
            CredentialsDirectorySource(settings_cls, os.environ),
            dotenv_settings,
        )

    @model_validator(mode="before")
    @classmethod
    def _without_blanks_around_secrets(cls, values: Any) -> Any:
        """A line feed at the end of a secret belongs to the way it was set; a secret of blanks is as good as none."""
        secrets = {name for name, field in cls.model_fields.items() if is_secret(field)}
        stripped = {
            name: value.strip() if name in secrets and isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in stripped.items() if name not in secrets or value != ""}


SettingsT = TypeVar("SettingsT", bound=EnvironmentSettings)


def load(settings_cls: type[SettingsT], **values: Any) -> SettingsT:
    """Reads one settings class from the environment.

    Raises:
        ConfigurationError: one line per wrong variable, without values.
    """
    try:
        loaded = settings_cls(_env_file=os.environ.get("DASHTAM_ENV_FILE", ".env"), **values)
    except ValidationError as error:
        prefix = settings_cls.model_config.get("env_prefix") or ""
        lines = sorted({_explain(prefix, dict(item)) for item in error.errors(include_input=False, include_url=False)})
        raise ConfigurationError("; ".join(lines)) from None
    remember(_secret_parts(loaded))
    return loaded


def _secret_parts(settings: EnvironmentSettings) -> Iterator[str]:
    """What must never be written anywhere: secrets, the passwords in addresses, the keys of a list of keys."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            if "://" in text:  # where the server is may be said
                yield unquote(urlsplit(text).password or "")
            else:
                yield text
                yield from (part.strip().partition(":")[2] for part in text.split(","))


def _explain(prefix: str, item: dict[str, Any]) -> str:
    variable = f"{prefix}{'.'.join(str(part) for part in item['loc'])}".upper()
    message = "is required" if item["type"] == "missing" else str(item["msg"]).removeprefix("Value error, ")
    return f"{variable}: {message}" if variable else message


class DatabaseSettings(EnvironmentSettings, DatabaseLimits):
    """All that a migration needs."""

    database_url: SecretStr
    migrate_database_url: SecretStr | None = None
    """Role that may change the schema, when `DATABASE_URL`'s may not."""

    @field_validator("database_url", "migrate_database_url", mode="after")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(postgres_url(value.get_secret_value(), writes=True))


class QueueSettings(EnvironmentSettings, QueuePart):
    """Beat's settings, and those of Celery's own commands: no key, no database, no credential of a provider."""


class FlowerSettings(EnvironmentSettings, QueuePart, FlowerPart):
    """Flower's settings."""


class ExporterSettings(EnvironmentSettings, RedisPart, IntegrationsPart, ExporterPart):
    """The exporter's settings."""

    readonly_database_url: SecretStr
    """Role that only looks, and sees no token: `dashtam database roles` makes one."""

    @field_validator("readonly_database_url", mode="after")
    @classmethod
    def _readonly(cls, value: SecretStr) -> SecretStr:
        return SecretStr(postgres_url(value.get_secret_value(), writes=False))

    @model_validator(mode="after")
    def _postgres_is_safe_in_production(self) -> Self:
        require_tls("READONLY_DATABASE_URL", self.readonly_database_url, self.environment)
        return self


class Settings(DatabaseSettings, QueuePart, IntegrationsPart, FlowerPart, ExporterPart, WebPart):
    """The worker's settings. Durations are in seconds unless the name says otherwise."""

    readonly_database_url: SecretStr | None = None
    """The exporter's role; workers do not use it."""
    encryption_keys: SecretStr
    """`id:key` pairs, comma-separated, the one to write with first; keys as `dashtam keys generate` prints them."""

    claim_limit: PositiveInt = 1000
    """Logins that one tick claims per integration for a sync."""
    refresh_claim_limit: PositiveInt = 5000
    """Tokens that one tick claims per integration: a bound on what a backlog puts into the queue at once."""
    claim_seconds: PositiveInt = 120
    """How long a claimed row waits before another tick may claim it again, should its message be lost."""
    batch_size: PositiveInt = 250
    refresh_concurrency: PositiveInt = 250
    sync_concurrency: PositiveInt = 4
    sync_batch_size: PositiveInt = 8

    http_total_seconds: Seconds = 20
    """Total deadline of one call to a provider; below the lease."""
    http_max_bytes: PositiveInt = 32 * 1024 * 1024
    lease_seconds: Seconds = 45
    sync_interval: PositiveInt = 4 * 3600
    sync_min_interval: int = Field(default=60, ge=0)
    """Least time between two manual syncs of one provider, unless forced."""
    sync_budget_seconds: PositiveInt = 200
    """A sync that takes longer stops after its page and is due again at once; it goes on from its cursors."""
    run_dead_seconds: PositiveInt = 180
    """A running run without a heartbeat for so long is taken over."""
    sync_overlap_days: PositiveInt = 10
    sync_backfill_days: PositiveInt = 730
    sync_window_days: PositiveInt = 90
    mass_deletion_share: float = Field(default=0.5, gt=0, le=1)
    """A listing or window that would withdraw more than this share of rows is not believed."""

    link_state_seconds: PositiveInt = 900

    quota_scale: float = Field(default=1, gt=0, allow_inf_nan=False)
    """Multiplies every quota that an integration states, for an application that was granted more than is published."""
    manual_quota_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of every quota that only manual triggers may use."""
    retry_after_max: PositiveInt = 3600
    """Longest time for which one provider's Retry-After stops everybody within its scope."""
    breaker_failures: PositiveInt = 10
    """Consecutive failures of a whole integration that open its breaker."""
    breaker_providers: PositiveInt = 3
    """How many logins these failures must come from."""
    breaker_seconds: Seconds = 15
    """Until the first probe; doubles with every probe that fails, up to `breaker_max_seconds`."""
    breaker_max_seconds: Seconds = 300
    refused_providers: PositiveInt = 5
    """How many logins must be refused without a word on whose account, and none served meanwhile, to pause all."""

    notice_channels: str = "log"
    """Which of `log`, `email`, `webhook` notices go to, comma-separated."""
    notice_from: str = ""
    """Sender of e-mail."""
    operator_email: str = ""
    """Who hears of alarms."""
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """`none` is for servers on this machine alone."""
    smtp_user: str = ""
    smtp_password: SecretStr | None = None
    smtp_ca_file: Path | None = None
    """Certificates to trust besides the system's own."""
    webhook_url: str = ""
    webhook_secret: SecretStr | None = None

    retain_attempts_days: PositiveInt = 30
    retain_runs_days: PositiveInt = 90
    retain_snapshots_days: PositiveInt = 730
    retain_quarantine_days: PositiveInt = 90
    """Counted from the day on which a record was resolved; open ones are kept."""
    retain_notices_days: PositiveInt = 180
    retain_failures_days: PositiveInt = 90
    """Dead letters that were resolved."""

    otel_exporter_otlp_endpoint: str = ""
    """Where traces are sent to, over HTTP; nowhere when empty."""

    database_threads: PositiveInt = 4
    """Threads, each with a connection, that run the database steps of one worker process."""

    failpoints: str = ""
    """For tests alone: places where a worker stops on purpose. Refused in production."""

    @field_validator("encryption_keys", mode="after")
    @classmethod
    def _keys(cls, value: SecretStr) -> SecretStr:
        # At startup, and not when the first token is read.
        try:
            parse_keys(value.get_secret_value())
        except ConfigurationError as error:
            raise ValueError(str(error).removeprefix("ENCRYPTION_KEYS: ")) from None
        return value

    @field_validator("notice_from", "operator_email", mode="after")
    @classmethod
    def _mail_address(cls, value: str, info: ValidationInfo) -> str:
        if value:
            for_header(value) if info.field_name == "notice_from" else normalised(value)
        return value

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if not self.http_total_seconds < self.lease_seconds:
            raise ValueError("HTTP_TOTAL_SECONDS must be below LEASE_SECONDS, or two workers refresh one token")
        if not self.database_step_seconds < min(self.lease_seconds, self.run_dead_seconds):
            raise ValueError(
                "DATABASE_STEP_SECONDS must be below LEASE_SECONDS and RUN_DEAD_SECONDS, or a worker that waits for"
                " Postgres is considered dead"
            )
        return self

    @model_validator(mode="after")
    def _safe_in_production(self) -> Self:
        if self.environment == "production" and self.failpoints:
            raise ValueError("FAILPOINTS: not in production")
        require_tls("DATABASE_URL", self.database_url, self.environment)
        return self

    @model_validator(mode="after")
    def _channels_are_complete(self) -> Self:
        channels = self.enabled_channels
        if set(channels) - {"log", "email", "webhook"}:
            raise ValueError("NOTICE_CHANNELS: names one that does not exist; there are log, email, webhook")
        if "email" in channels:
            if not (self.smtp_host and self.notice_from):
                raise ValueError("NOTICE_CHANNELS: email needs SMTP_HOST and NOTICE_FROM")
            if self.smtp_security == "none" and not is_loopback(f"smtp://{self.smtp_host}"):
                raise ValueError("SMTP_SECURITY: none only on loopback; use starttls or tls")
        if "webhook" in channels:
            if not self.webhook_url or self.webhook_secret is None:
                raise ValueError("NOTICE_CHANNELS: webhook needs WEBHOOK_URL and WEBHOOK_SECRET")
            if not self.webhook_url.startswith("https://") and not is_loopback(self.webhook_url):
                raise ValueError("WEBHOOK_URL: without TLS off loopback; use https://")
        return self

    @property
    def enabled_channels(self) -> tuple[str, ...]:
        """Channels that notices go to."""
        return tuple(channel.strip() for channel in self.notice_channels.split(",") if channel.strip())


@cache
def get_settings() -> Settings:
    """The process's settings, read once.

    Raises:
        ConfigurationError: see `load`.
    """
    return load(Settings)
