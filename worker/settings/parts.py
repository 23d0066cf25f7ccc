"""Parts that the settings of several programs are made of, so that each reads what it needs and no secret of another's.

| program | reads |
|---|---|
| beat | `QueuePart` |
| Flower | `QueuePart`, `FlowerPart` |
| exporter | `RedisPart`, `IntegrationsPart`, `ExporterPart`, the address of a role that only looks |
| workers, `dashtam` | everything |
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, PositiveInt, SecretStr, field_validator, model_validator

from worker.settings.addresses import is_loopback, is_readable, postgres_has_tls, redis_has_tls, require_redis_url
from worker.settings.built_in import built_in_integrations

Environment = Literal["development", "test", "production"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ProcessPart(BaseModel):
    """What every process reads."""

    environment: Environment = Field(default="development", validation_alias="DASHTAM_ENV")
    home: Path = Field(default=Path(".dashtam"), validation_alias="DASHTAM_HOME")

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class RedisPart(ProcessPart):
    """Where Redis is."""

    redis_url: SecretStr
    """Quotas, the journal and, unless `broker_url` says otherwise, the queues."""

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        require_redis_url(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _redis_is_safe_in_production(self) -> Self:
        redis = self.redis_url.get_secret_value()
        if self.environment == "production" and not is_loopback(redis) and not redis_has_tls(redis):
            raise ValueError("REDIS_URL: without verified TLS off loopback; use rediss:// and leave ssl_cert_reqs out")
        return self


class QueuePart(RedisPart):
    """What sends and takes tasks reads."""

    broker_url: SecretStr | None = None
    """Another broker for the queues: amqp:// or amqps://."""
    tick_scale: float = Field(default=1, gt=0, allow_inf_nan=False)
    """Multiplies every interval of `schedules`; below 1 for demonstrations and tests."""

    visibility_timeout: PositiveInt = 600
    task_time_limit: PositiveInt = 540
    task_soft_time_limit: PositiveInt = 480
    soft_shutdown_seconds: Seconds = 30

    @field_validator("broker_url", mode="after")
    @classmethod
    def _broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not value.get_secret_value().startswith(("amqp://", "amqps://")):
            raise ValueError("must begin with amqp:// or amqps://; a Redis is REDIS_URL's")
        if not is_readable(value.get_secret_value()):
            raise ValueError("is not a readable address; put brackets only around IPv6 hosts")
        return value

    @model_validator(mode="after")
    def _task_limits_fit(self) -> Self:
        if not self.task_soft_time_limit < self.task_time_limit < self.visibility_timeout:
            raise ValueError(
                "TASK_SOFT_TIME_LIMIT < TASK_TIME_LIMIT < VISIBILITY_TIMEOUT must hold, or a task runs twice"
            )
        return self

    @model_validator(mode="after")
    def _broker_is_safe_in_production(self) -> Self:
        broker = self.broker_url.get_secret_value() if self.broker_url else ""
        if self.environment == "production" and broker.startswith("amqp://") and not is_loopback(broker):
            raise ValueError("BROKER_URL: without TLS off loopback; use amqps://")
        return self


class IntegrationsPart(BaseModel):
    """Which integrations there are."""

    integrations: str = ""
    """Which integrations are enabled, comma-separated; all that are built in when empty."""

    @property
    def enabled_integrations(self) -> tuple[str, ...]:
        """Keys of the integrations that this process serves."""
        return tuple(key.strip() for key in self.integrations.split(",") if key.strip()) or built_in_integrations()


class FlowerPart(BaseModel):
    """What Flower alone needs."""

    flower_user: str = "operator"
    flower_password: SecretStr | None = None
    flower_address: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=0, le=65535)
    flower_allow_triggers: bool = False
    """Whether tasks may be sent and workers steered from Flower."""


class ExporterPart(BaseModel):
    """What the exporter alone needs."""

    exporter_address: str = "127.0.0.1"
    exporter_port: int = Field(default=9540, ge=0, le=65535)
    """Where `/metrics` listens."""


class WebPart(BaseModel):
    """What the HTTP door alone needs."""

    web_address: str = "127.0.0.1"
    web_port: int = Field(default=8000, ge=0, le=65535)
    web_hosts: str = "127.0.0.1,localhost,[::1]"
    """Names under which it is reached, comma-separated; a request for any other `Host` is refused."""
    web_proxies: str = ""
    """Addresses of proxies in front of it, comma-separated, whose X-Forwarded-For and -Proto are believed."""
    web_key_rate: str = "600/minute"
    """How often one API key may ask, as `limits` writes it."""
    web_address_rate: str = "1200/minute"
    """How often one address may ask, with whatever key or none."""
    web_body_bytes: int = Field(default=256 * 1024, ge=1024)
    """The longest body that is read."""
    web_body_seconds: Seconds = 10
    """How long a body may take to arrive."""

    @field_validator("web_key_rate", "web_address_rate", mode="after")
    @classmethod
    def _rate(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d{0,8}/(second|minute|hour|day)", value):
            raise ValueError("must be a number, a slash, and second, minute, hour or day, for example 600/minute")
        return value

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """`web_hosts`, in lower case."""
        return frozenset(host.strip().lower() for host in self.web_hosts.split(",") if host.strip())


def require_tls(variable: str, address: SecretStr | None, environment: Environment) -> None:
    """Raises `ValueError` for a Postgres off this machine that production would reach in plain text."""
    url = address.get_secret_value() if address else ""
    if environment == "production" and url and not is_loopback(url) and not postgres_has_tls(url):
        raise ValueError(f"{variable}: without TLS off loopback; add sslmode=verify-full")
