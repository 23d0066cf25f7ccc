"""The settings of all programs. Only this package reads the environment.

Every variable can come from the environment, from a `.env` file (`DASHTAM_ENV_FILE` can name another), or from a file
with its name in `CREDENTIALS_DIR`. A secret `X` can also come from a file that `X_FILE` names. If the configuration is
unsafe or incomplete, the program does not start: a `ConfigurationError` names the variable and never shows its value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import parse_qs, unquote

from pydantic import Field, PositiveInt, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from worker.errors import ConfigurationError
from worker.process.urls import split_url
from worker.settings.addresses import is_loopback, postgres_url, public_url
from worker.settings.database import DatabaseLimits
from worker.settings.keys import parse_keys
from worker.settings.parts import (
    BrokerPart,
    ExporterPart,
    FlowerPart,
    IntegrationsPart,
    OutboxPart,
    QueuePart,
    Seconds,
    WebPart,
    require_tls,
)
from worker.settings.secret_files import CredentialsDirectorySource, SecretFileSource, is_secret
from worker.telemetry.redaction import remember
from worker.text.mail_addresses import for_header, normalised


class EnvironmentSettings(BaseSettings):
    """The base of all settings classes. Adds secret files and `CREDENTIALS_DIR` to pydantic's sources."""

    # Without `only_existing`, pydantic compares every line of a `.env` file with every field, only to ignore the rest.
    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, frozen=True, dotenv_filtering="only_existing", defer_build=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources in their order, with `X_FILE` in both places for every secret `X`, and with `CREDENTIALS_DIR`."""
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
        """Removes white space around secrets, such as a line feed from a file. A secret of spaces counts as not set."""
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
        ConfigurationError: a variable is missing or wrong; the text names each such variable, without its value.
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
    """The texts that must never be written: secrets, the passwords in URLs, the keys in a list of keys."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            if "://" in text:  # only passwords are secret, not the server's address
                for url in text.split(";"):
                    yield unquote(split_url(url).password or "")
                    yield parse_qs(split_url(url).query).get("sentinel_password", [""])[0]
            else:
                yield text
                yield from (part.strip().partition(":")[2] for part in text.split(","))


def _explain(prefix: str, item: dict[str, Any]) -> str:
    variable = f"{prefix}{'.'.join(str(part) for part in item['loc'])}".upper()
    message = "is required" if item["type"] == "missing" else str(item["msg"]).removeprefix("Value error, ")
    return f"{variable}: {message}" if variable else message


class DatabaseSettings(EnvironmentSettings, DatabaseLimits):
    """The settings that a migration needs."""

    database_url: SecretStr
    migrate_database_url: SecretStr | None = None
    """URL with a role that may change the schema, if the role in `DATABASE_URL` may not."""

    @field_validator("database_url", "migrate_database_url", mode="after")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(postgres_url(value.get_secret_value(), writes=True))


class QueueSettings(EnvironmentSettings, QueuePart):
    """The settings of beat and of Celery's own commands: no encryption key, database or credential of a provider."""


class FlowerSettings(EnvironmentSettings, QueuePart, FlowerPart):
    """Flower's settings."""


class ExporterSettings(EnvironmentSettings, BrokerPart, IntegrationsPart, ExporterPart):
    """The exporter's settings."""

    readonly_database_url: SecretStr
    """URL with a role that can only read, and no tokens: `dashtam database roles` makes one."""

    @field_validator("readonly_database_url", mode="after")
    @classmethod
    def _readonly(cls, value: SecretStr) -> SecretStr:
        return SecretStr(postgres_url(value.get_secret_value(), writes=False))

    @model_validator(mode="after")
    def _postgres_is_safe_in_production(self) -> Self:
        require_tls("READONLY_DATABASE_URL", self.readonly_database_url, self.environment)
        return self


class Settings(DatabaseSettings, QueuePart, IntegrationsPart, FlowerPart, ExporterPart, WebPart, OutboxPart):
    """The worker's settings. Durations are in seconds unless the name says otherwise."""

    readonly_database_url: SecretStr | None = None
    """URL with the exporter's role; workers do not use it."""
    encryption_keys: SecretStr
    """`id:key` pairs, separated by commas. The first key encrypts new data. `dashtam keys generate` prints a key."""

    claim_limit: PositiveInt = 1000
    """How many logins one tick claims for a sync, per integration."""
    refresh_claim_limit: PositiveInt = 5000
    """How many tokens one tick claims per integration. This limits how much a backlog puts into the queue at once."""
    claim_seconds: PositiveInt = 120
    """After how long another tick may claim a row again, in case its message was lost."""
    batch_size: PositiveInt = 250
    refresh_concurrency: PositiveInt = 250
    sync_concurrency: PositiveInt = 4
    """How many logins one process reads and stores at the same time."""
    sync_in_flight: PositiveInt = 32
    """How many logins one process asks at the same time whether anything is new; nothing is stored meanwhile."""
    sync_batch_size: PositiveInt = 32

    http_total_seconds: Seconds = 20
    """Total deadline of one call to a provider; must be shorter than the lease."""
    http_max_bytes: PositiveInt = 32 * 1024 * 1024
    lease_seconds: Seconds = 45
    sync_interval: PositiveInt = 4 * 3600
    sync_interval_hooked: PositiveInt = 12 * 3600
    """Time between two syncs of a login for which hooks arrive, unless a hook asks for one earlier."""
    sync_min_interval: int = Field(default=60, ge=0)
    """Shortest time between two manual syncs of one provider, unless the second is forced."""
    sync_budget_seconds: PositiveInt = 200
    """A sync that takes longer stops after its present page, is due again at once, and continues from its cursors."""
    run_dead_seconds: PositiveInt = 180
    """Another worker takes over a running run that has had no heartbeat for this long."""
    sync_overlap_days: PositiveInt = 10
    sync_backfill_days: PositiveInt = 730
    sync_window_days: PositiveInt = 365
    """Longest time span for which a provider that lists by date is asked at once, if it allows so long a one."""
    mass_deletion_share: float = Field(default=0.5, gt=0, le=1)
    """If a listing or window would withdraw more than this share of the rows, nothing is withdrawn."""

    web_public_url: str = ""
    """The address at which others reach it, for example https://dashtam.example. Providers are asked to send their
    hooks there, to `/webhooks/<provider_key>`; if it is empty, none is asked."""
    link_state_seconds: PositiveInt = 900

    quota_scale: float = Field(default=1, gt=0, allow_inf_nan=False)
    """A factor for every quota of an integration, if the provider allows our application more than it publishes."""
    manual_quota_share: float = Field(default=0.1, ge=0, lt=1)
    """The share of every quota that only manually requested work may use."""
    retry_after_max: PositiveInt = 3600
    """The longest time for which one Retry-After can stop all calls in its scope."""
    breaker_failures: PositiveInt = 10
    """After how many failures in a row, counted over the whole integration, its breaker opens."""
    breaker_providers: PositiveInt = 3
    """From how many different logins these failures must come."""
    breaker_seconds: Seconds = 15
    """The wait before the first probe. It doubles after every failed probe, up to `breaker_max_seconds`."""
    breaker_max_seconds: Seconds = 300
    refused_providers: PositiveInt = 5
    """An integration is paused when this many logins are refused without a stated cause and no other one succeeds."""

    notice_channels: str = "log"
    """Where notices are sent: one or more of `log`, `email`, `webhook`, separated by commas."""
    notice_from: str = ""
    """The sender's address of e-mails."""
    operator_email: str = ""
    """The address to which alarms are sent."""
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """`none` is allowed only for a server on this machine."""
    smtp_user: str = ""
    smtp_password: SecretStr | None = None
    smtp_ca_file: Path | None = None
    """A file with certificates that are trusted in addition to the system's."""
    webhook_url: str = ""
    webhook_secret: SecretStr | None = None

    retain_attempts_days: PositiveInt = 30
    retain_runs_days: PositiveInt = 90
    retain_snapshots_days: PositiveInt = 730
    retain_quarantine_days: PositiveInt = 90
    """Counted from the day on which a record was resolved; unresolved records are kept."""
    retain_notices_days: PositiveInt = 180
    retain_hooks_days: PositiveInt = 7
    """Must be longer than a provider goes on repeating a hook; a day at most is usual."""
    retain_changes_days: PositiveInt = 30
    retain_failures_days: PositiveInt = 90
    """For dead letters that were resolved."""

    otel_exporter_otlp_endpoint: str = ""
    """The URL to which traces are sent over HTTP; if it is empty, none are sent."""

    database_threads: PositiveInt = 4
    """Number of threads, each with its own connection, that run the database steps of one worker process."""

    failpoints: str = ""
    """Only for tests: places where a worker stops on purpose. Refused in production."""

    @field_validator("encryption_keys", mode="after")
    @classmethod
    def _keys(cls, value: SecretStr) -> SecretStr:
        # Checked at startup, so that a wrong key is not found only when the first token is read.
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

    @field_validator("web_public_url", mode="after")
    @classmethod
    def _public_url(cls, value: str) -> str:
        return public_url(value) if value else ""

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

    def hook_url(self, provider_key: str) -> str | None:
        """The address to which a provider is asked to send its hooks; None if none is asked."""
        return f"{self.web_public_url}/webhooks/{provider_key}" if self.web_public_url else None

    @property
    def enabled_channels(self) -> tuple[str, ...]:
        """The channels to which notices are sent."""
        return tuple(channel.strip() for channel in self.notice_channels.split(",") if channel.strip())


@cache
def get_settings() -> Settings:
    """The process's settings, read once.

    Raises:
        ConfigurationError: see `load`.
    """
    return load(Settings)
