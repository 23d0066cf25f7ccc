"""Models of the requests and answers about hooks that we send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from worker.models.outbox import DeliveryRow, SubscriptionRow
from worker.services.access.outbox import WantedHook
from worker.services.outbox.subscriptions import Made

_ID = "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11"
_URL = "https://app.example.org/hooks/dashtam"
_EVENTS = ["sync.completed", "provider.needs_reauth"]

DeliveryState = Literal["waiting", "parked", "received"]


def _example(**example: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class NewHook(BaseModel):
    """An address that is to be told of events."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"url": _URL, "events": [*_EVENTS], "description": "my app"}]}
    )

    url: Annotated[str, Field(min_length=1, max_length=2000, description="Where events are posted; https.")]
    events: Annotated[list[str], Field(max_length=20, description="Which events; empty: all that there are.")] = []
    description: Annotated[str, Field(max_length=100, description="What it is for.")] = ""
    user: Annotated[
        str | None,
        Field(max_length=320, description="For an operator's key: e-mail address or id of the user whose events."),
    ] = None

    def wanted(self) -> WantedHook:
        """The same in the form that services take."""
        return WantedHook(self.url, self.events, self.description, self.user)


class HookResponse(BaseModel):
    """A hook. `secret` is only in the answer that made it."""

    model_config = _example(
        id=_ID,
        url=_URL,
        events=_EVENTS,
        description="my app",
        user_id=None,
        created_at="2026-01-05T10:00:00Z",
        created_by="operator:key 1f2e3d4c",
        disabled_at=None,
        disabled_by=None,
        old_secret_until=None,
        failing_since=None,
        last_sent_at="2026-01-05T10:20:00Z",
        last_error=None,
        waiting=0,
        parked=0,
        oldest_waiting_at=None,
        secret=None,
    )

    id: UUID
    url: str
    events: list[str]
    description: str
    user_id: UUID | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_by: str | None
    old_secret_until: datetime | None
    failing_since: datetime | None
    last_sent_at: datetime | None
    last_error: str | None
    waiting: int
    parked: int
    oldest_waiting_at: datetime | None
    secret: str | None = None

    @classmethod
    def of(cls, row: SubscriptionRow, secret: str | None = None) -> HookResponse:
        """The answer for a stored hook."""
        return cls(secret=secret, **{name: getattr(row, name) for name in cls.model_fields if name != "secret"})

    @classmethod
    def made(cls, made: Made) -> HookResponse:
        """The answer for a hook with a new secret."""
        return cls.of(made.row, made.secret)


class HookList(BaseModel):
    """Hooks, oldest first."""

    hooks: list[HookResponse]


class HookDeliveryResponse(BaseModel):
    """One event on its way to one hook. `event_id` is the header `webhook-id`."""

    model_config = _example(
        event_id=_ID,
        type="sync.completed",
        state="waiting",
        provider_id=_ID,
        created_at="2026-01-05T10:20:00Z",
        due_at="2026-01-05T10:25:00Z",
        attempts=1,
        sent_at=None,
        parked_at=None,
        status=503,
        last_error="it answered 503",
    )

    event_id: UUID
    type: str
    state: DeliveryState
    provider_id: UUID | None
    created_at: datetime
    due_at: datetime | None
    attempts: int
    sent_at: datetime | None
    parked_at: datetime | None
    status: int | None
    last_error: str | None

    @classmethod
    def of(cls, row: DeliveryRow) -> HookDeliveryResponse:
        """The answer for a stored delivery."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class HookDeliveryList(BaseModel):
    """Deliveries of one hook, newest first."""

    deliveries: list[HookDeliveryResponse]


def _utc(given: datetime) -> datetime:
    return given.astimezone(UTC)


class Replay(BaseModel):
    """What is sent again: one event, or all since a time; without both, what was given up."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"since": "2026-01-05T00:00:00Z"}]})

    event_id: UUID | None = None
    since: Annotated[AwareDatetime, AfterValidator(_utc)] | None = None


class Replayed(BaseModel):
    """How many deliveries are sent again."""

    model_config = _example(deliveries=3)

    deliveries: int


class TestQueued(BaseModel):
    """The id of a test event; the hook's deliveries show what becomes of it."""

    __test__ = False
    model_config = _example(event_id=_ID)

    event_id: UUID
