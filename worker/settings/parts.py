"""Parts from which each program's settings are made, so that a program reads only the variables that it needs.

| program | reads |
|---|---|
| beat | `QueuePart` |
| Flower | `QueuePart`, `FlowerPart` |
| exporter | `BrokerPart`, `IntegrationsPart`, `ExporterPart`, the database URL of a role that can only read |
| workers, `dashtam` | everything |
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, PositiveInt, SecretStr, field_validator, model_validator

from worker.process import redis_address
from worker.settings.addresses import (
    Network,
    is_loopback,
    is_readable,
    networks,
    origin_of,
    postgres_has_tls,
    redis_has_tls,
)
from worker.settings.built_in import built_in_integrations, needed_variable
from worker.settings.given import is_given

Environment = Literal["development", "test", "production"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ProcessPart(BaseModel):
    """The settings that every process reads."""

    environment: Environment = Field(default="development", validation_alias="DASHTAM_ENV")
    home: Path = Field(default=Path(".dashtam"), validation_alias="DASHTAM_HOME")

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class RedisPart(ProcessPart):
    """The settings of programs that use Redis."""

    redis_url: SecretStr
    """The Redis for quotas and the journal, and also for the queues if `broker_url` is not set."""

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        redis_address.parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _redis_is_safe_in_production(self) -> Self:
        redis = self.redis_url.get_secret_value()
        if self.environment == "production" and not is_loopback(redis) and not redis_has_tls(redis):
            raise ValueError(
                "REDIS_URL: without verified TLS off loopback; use rediss:// (for Sentinels sentinels://) and leave"
                " ssl_cert_reqs out"
            )
        return self


class BrokerPart(RedisPart):
    """The settings of programs that ask the broker."""

    broker_url: SecretStr | None = None
    """Another broker, only for the queues: amqp:// or amqps://."""
    broker_queue_type: Literal["quorum", "classic"] = "quorum"
    """RabbitMQ: the type of the queues that the worker makes. Queues that exist are used as they are."""

    @field_validator("broker_url", mode="after")
    @classmethod
    def _broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        for url in value.get_secret_value().split(";"):
            if not url.startswith(("amqp://", "amqps://")):
                raise ValueError("must begin with amqp:// or amqps://; a Redis is REDIS_URL's")
            if not is_readable(url):
                raise ValueError("is not a readable address; put brackets only around IPv6 hosts")
        return value

    @model_validator(mode="after")
    def _broker_is_safe_in_production(self) -> Self:
        for broker in self.broker_url.get_secret_value().split(";") if self.broker_url else ():
            if self.environment == "production" and broker.startswith("amqp://") and not is_loopback(broker):
                raise ValueError("BROKER_URL: without TLS off loopback; use amqps://")
        return self


class QueuePart(BrokerPart):
    """The settings of programs that send or receive tasks."""

    tick_scale: float = Field(default=1, gt=0, allow_inf_nan=False)
    """A factor for every interval of `schedules`; below 1 for demonstrations and tests."""

    visibility_timeout: PositiveInt = 600
    task_time_limit: PositiveInt = 540
    task_soft_time_limit: PositiveInt = 480
    soft_shutdown_seconds: Seconds = 30

    alive_file: Path | None = None
    """A file for probes: the loops of workers and beat touch it every five seconds. A second file beside it, with
    `.connected` behind its name, is touched only while the broker is connected. Each process needs its own path."""

    @model_validator(mode="after")
    def _task_limits_fit(self) -> Self:
        if not self.task_soft_time_limit < self.task_time_limit < self.visibility_timeout:
            raise ValueError(
                "TASK_SOFT_TIME_LIMIT < TASK_TIME_LIMIT < VISIBILITY_TIMEOUT must hold, or a task runs twice"
            )
        return self


class IntegrationsPart(BaseModel):
    """The setting that says which integrations are enabled."""

    integrations: str = ""
    """Keys of the enabled integrations, separated by commas. If empty, all built-in integrations are enabled, except
    those that need a registration (`built_in.needed_variable`) of which nothing is configured."""

    @property
    def enabled_integrations(self) -> tuple[str, ...]:
        """The keys of the integrations that this process serves."""
        named = tuple(key.strip() for key in self.integrations.split(",") if key.strip())
        needs = {key: needed_variable(key) for key in built_in_integrations()} if not named else {}
        return named or tuple(key for key, variable in needs.items() if variable is None or is_given(variable))


class FlowerPart(BaseModel):
    """The settings that only Flower needs."""

    flower_user: str = "operator"
    flower_password: SecretStr | None = None
    flower_address: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=0, le=65535)
    flower_allow_triggers: bool = False
    """Whether Flower may send tasks and control workers."""


class ExporterPart(BaseModel):
    """The settings that only the exporter needs."""

    exporter_address: str = "127.0.0.1"
    exporter_port: int = Field(default=9540, ge=0, le=65535)
    """The port on which `/metrics` is served."""
    exporter_gauges: bool = True
    """False: only the counts of this home. With many homes, one exporter is enough to ask Postgres and the broker."""
    database_pooler: bool = False
    """True if there is a pooler in transaction mode: limits are set in each transaction, and nothing is prepared."""


class WebPart(BaseModel):
    """The settings that only the HTTP API needs."""

    web_address: str = "127.0.0.1"
    web_port: int = Field(default=8000, ge=0, le=65535)
    web_hosts: str = "127.0.0.1,localhost,[::1]"
    """The host names under which clients reach it, separated by commas; requests for any other `Host` are refused."""
    web_proxies: str = ""
    """Addresses of the proxies in front of it, separated by commas; only their X-Forwarded-For and -Proto are used."""
    web_key_rate: str = "600/minute"
    """How many requests one API key may send, in the notation of the library `limits`."""
    web_address_rate: str = "1200/minute"
    """How many requests one address may send, with any key or without one."""
    web_hook_rate: str = "60000/minute"
    """How many hooks may come from one address. A provider sends all of its hooks from few addresses."""
    web_body_bytes: int = Field(default=256 * 1024, ge=1024)
    """The size of the longest body that is accepted."""
    web_body_seconds: Seconds = 10
    """The longest time in which a body must arrive."""
    web_session_seconds: PositiveInt = 12 * 3600
    """How long a browser stays logged in to the status page."""
    web_streams_per_key: PositiveInt = 10
    """How many streams of events one API key may have open at each process."""
    web_login_links: bool = False
    """Whether `/login#KEY` logs a browser in by itself. `dashtam run` sets it. Refused in production and off loopback:
    anybody could send a person a link that logs that person in with another key."""

    demonstration_user: str = ""
    """E-mail address of the user for whom the page `/demonstration` links logins; without it, there is no such page.
    `dashtam run` sets it. Refused in production and off loopback, because the page needs no key."""
    link_return_origins: str = ""
    """Where a browser may go after a link: origins like `https://app.example.org`, separated by commas."""
    link_session_seconds: PositiveInt = 1800
    """How long a person may take for a link in the browser."""
    setup_token_seconds: PositiveInt = 3600
    """How long the setup token of a SimpleFIN access can be exchanged."""

    @field_validator("link_return_origins", mode="after")
    @classmethod
    def _origins(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            try:
                origin = origin_of(entry)
            except ValueError as error:
                raise ValueError(f"{entry!r} {error}") from None
            if origin != entry.lower().rstrip("/"):
                raise ValueError(f"{entry!r} is no origin; write {origin}")
        return value

    @property
    def return_origins(self) -> frozenset[str]:
        """`link_return_origins`, one by one."""
        return frozenset(origin_of(part.strip()) for part in self.link_return_origins.split(",") if part.strip())

    @field_validator("web_key_rate", "web_address_rate", "web_hook_rate", mode="after")
    @classmethod
    def _rate(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d{0,8}/(second|minute|hour|day)", value):
            raise ValueError("must be a number, a slash, and second, minute, hour or day, for example 600/minute")
        return value

    @model_validator(mode="after")
    def _demonstrations_stay_on_this_machine(self) -> Self:
        is_real = getattr(self, "environment", None) == "production"
        if is_real or not is_loopback(f"http://{self.web_address}"):
            for name in ("web_login_links", "demonstration_user"):
                if getattr(self, name):
                    raise ValueError(f"{name.upper()}: only outside production, and with a WEB_ADDRESS on loopback")
        return self

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """`web_hosts`, in lower case."""
        return frozenset(host.strip().lower() for host in self.web_hosts.split(",") if host.strip())


def require_tls(variable: str, address: SecretStr | None, environment: Environment) -> None:
    """Refuses, in production, an unencrypted connection to a Postgres on another machine.

    Raises:
        ValueError: the URL does not require TLS.
    """
    url = address.get_secret_value() if address else ""
    if environment == "production" and url and not is_loopback(url) and not postgres_has_tls(url):
        raise ValueError(f"{variable}: without TLS off loopback; add sslmode=verify-full")


class OutboxPart(BaseModel):
    """The settings of the hooks that we send."""

    outbox_networks: str = ""
    """Networks that hooks may be sent to although they are private, for example 127.0.0.0/8,10.4.0.0/16. Only to these
    may they also be sent without TLS. If it is empty, hooks are sent to public addresses alone."""
    retain_outbox_days: PositiveInt = 30
    """For how long hooks can be sent again that were received or given up."""

    @field_validator("outbox_networks", mode="after")
    @classmethod
    def _networks(cls, value: str) -> str:
        networks(value)
        return value

    @property
    def allowed_networks(self) -> tuple[Network, ...]:
        """`outbox_networks`, one by one."""
        return networks(self.outbox_networks)
