"""Models of the HTTP API's requests and answers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from worker.models.fleet import LoginRow
from worker.models.link_session import LinkSessionRow
from worker.models.vocabulary import LinkSessionState, LoginState
from worker.services.access.link_sessions import Wanted
from worker.services.explain import Actor, Explanation
from worker.services.fleet.asking import Asked, SyncWish
from worker.text.plain_text import visible

_ID = "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11"


def _seen(alias: str) -> str:
    if not alias.strip() or visible(alias) != alias:
        raise ValueError("must have letters, and nothing that cannot be seen")
    return alias


Alias = Annotated[
    str, Field(min_length=1, max_length=100, description="What its user calls the login."), AfterValidator(_seen)
]
ProviderKey = Annotated[str, Field(min_length=1, max_length=50, description="Which institution: see provider types.")]


def _example(**example: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class NewProvider(BaseModel):
    """A login to create."""

    model_config = _example(provider_key="example", alias="My brokerage")

    provider_key: ProviderKey
    alias: Alias


class ProviderChange(BaseModel):
    """Changes to a login."""

    model_config = _example(alias="Savings")

    alias: Alias


class ProviderResponse(BaseModel):
    """One login.

    `needs_reconnection` is true if its user must link it, for the first time or again.
    """

    model_config = _example(
        id=_ID,
        provider_key="example",
        alias="My brokerage",
        status="active",
        is_connected=True,
        needs_reconnection=False,
        connected_at="2026-01-05T09:30:00Z",
        last_sync_at="2026-01-05T12:00:00Z",
        accounts_count=2,
    )

    id: UUID
    provider_key: str
    alias: str
    status: LoginState
    is_connected: bool
    needs_reconnection: bool
    connected_at: datetime | None
    last_sync_at: datetime | None
    accounts_count: int

    @classmethod
    def of(cls, row: LoginRow) -> ProviderResponse:
        """The answer for a stored login."""
        return cls(
            id=row.id,
            provider_key=row.provider_key,
            alias=row.alias,
            status=LoginState(row.state),
            is_connected=row.state == LoginState.ACTIVE,
            needs_reconnection=not row.is_linked,
            connected_at=row.connected_at,
            last_sync_at=row.synced_at,
            accounts_count=row.accounts,
        )


class ProviderPage(BaseModel):
    """One page of logins."""

    model_config = _example(items=[], total=0, page=1, per_page=50, pages=0, has_next=False, has_prev=False)

    items: list[ProviderResponse]
    total: int
    page: int
    per_page: int
    pages: int
    has_next: bool
    has_prev: bool

    @classmethod
    def of(cls, rows: list[LoginRow], *, total: int, page: int, per_page: int) -> ProviderPage:
        """The page of these rows."""
        pages = -(-total // per_page)
        items = [ProviderResponse.of(row) for row in rows]
        return cls(
            items=items,
            total=total,
            page=page,
            per_page=per_page,
            pages=pages,
            has_next=page < pages,
            has_prev=page > 1,
        )


class Message(BaseModel):
    """A sentence that says what was done."""

    model_config = _example(message="My brokerage was removed", detail="Its grant was ended at the provider.")

    message: str
    detail: str | None = None


class AuthorizationBegun(BaseModel):
    """The address at which the user consents. The browser that comes back must have the cookie of this answer."""

    model_config = _example(
        auth_url="https://provider.example/oauth/authorize?…", state="…", message="Open auth_url in this browser."
    )

    auth_url: str
    state: str
    message: str


class AuthorizationState(BaseModel):
    """Whether a login has a grant, and its dates."""

    model_config = _example(
        provider_id=_ID,
        alias="My brokerage",
        status="connected",
        message=None,
        expires_at="2026-01-05T10:00:00Z",
        has_refresh_token=True,
        scope="readonly",
    )

    provider_id: UUID
    alias: str
    status: Literal["connected", "not_connected"]
    message: str | None = None
    expires_at: datetime | None = None
    has_refresh_token: bool | None = None
    scope: str | None = None


class Authorized(BaseModel):
    """A login that was just linked; `expires_in` is the lifetime of its access token in seconds."""

    model_config = _example(
        message="My brokerage is linked", provider_id=_ID, alias="My brokerage", expires_in=1800, scope="readonly"
    )

    message: str
    provider_id: UUID
    alias: str
    expires_in: int | None = None
    scope: str | None = None


class NewLinkSession(BaseModel):
    """A login that a person is to link in a browser."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"alias": "My bank", "return_url": "https://app.example.org/linked"}]},
    )

    provider_key: Annotated[ProviderKey | None, Field(description="Without it, the person chooses.")] = None
    alias: Annotated[Alias | None, Field(description="The name of the new login. Without it, the person says.")] = None
    provider_id: Annotated[
        UUID | None, Field(description="A login to link again or to renew, instead of a new one.")
    ] = None
    return_url: Annotated[str | None, Field(max_length=2000, description="Where the browser goes afterwards.")] = None
    user: Annotated[
        str | None, Field(max_length=320, description="For an operator's key: the user's e-mail address.")
    ] = None

    def wanted(self) -> Wanted:
        """The same in the form that services take."""
        return Wanted(self.provider_key, self.alias, self.provider_id, self.return_url, self.user)


class LinkSessionResponse(BaseModel):
    """A link session and what became of it. `url` is the page to open; only the answer that made the session has it."""

    model_config = _example(
        id=_ID,
        status="open",
        provider_key=None,
        provider_id=None,
        expires_at="2026-01-05T10:00:00Z",
        url="https://dashtam.example.org/link?session=…",
    )

    id: UUID
    status: LinkSessionState
    provider_key: str | None
    provider_id: UUID | None
    expires_at: datetime
    url: str | None = None

    @classmethod
    def of(cls, row: LinkSessionRow, url: str | None = None) -> LinkSessionResponse:
        """The answer for a stored session; `provider_id` is the login that was linked, or is to be linked again."""
        return cls(
            id=row.id,
            status=LinkSessionState(row.state),
            provider_key=row.provider_key,
            provider_id=row.linked_id or row.provider_id,
            expires_at=row.expires_at,
            url=url,
        )


class FormTokenResponse(BaseModel):
    """What opens the provider's own form for this login's user, to renew the consent."""

    model_config = _example(link_token="link-production-…", expires_at="2026-01-05T13:30:00Z")  # noqa: S106

    link_token: str
    expires_at: datetime | None


class SyncRequest(BaseModel):
    """Options of a sync; by default it continues where the last one ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"full": False, "force": False}]})

    full: Annotated[bool, Field(description="From the beginning; what the provider no longer lists is removed.")] = (
        False
    )
    since: Annotated[date | None, Field(description="Go back to this day.")] = None
    force: Annotated[bool, Field(description="Even if the last one was a moment ago.")] = False

    def wish(self) -> SyncWish:
        """The options in the form that services take."""
        return SyncWish(full=self.full, since=self.since, force=self.force)


class Requested(BaseModel):
    """The work that was requested. If its message is lost, the schedule still does the work."""

    model_config = _example(provider_id=_ID, requested_at="2026-01-05T12:00:00Z", task_ids=["…"])

    provider_id: UUID
    requested_at: datetime
    task_ids: list[str]

    @classmethod
    def of(cls, provider_id: UUID, asked: Asked) -> Requested:
        """The answer for work that was requested for one login."""
        return cls(provider_id=provider_id, requested_at=asked.at, task_ids=asked.task_ids)


class Explained(BaseModel):
    """An explanation of one login's state, in sentences.

    `must_act` is `nobody`, `user` or `operator`. A time is None if no work is scheduled.
    """

    model_config = _example(
        provider_id=_ID,
        status=["My brokerage is active: the schedule refreshes and syncs it."],
        refresh=["…"],
        sync=["…"],
        todo=["Nobody has to do anything."],
        must_act="nobody",
        next_refresh_at="2026-01-05T12:20:00Z",
        next_sync_at="2026-01-05T16:00:00Z",
    )

    provider_id: UUID
    status: list[str]
    refresh: list[str]
    sync: list[str]
    todo: list[str]
    must_act: Actor
    next_refresh_at: datetime | None
    next_sync_at: datetime | None

    @classmethod
    def of(cls, provider_id: UUID, told: Explanation) -> Explained:
        """The answer for an explanation."""
        return cls(provider_id=provider_id, **asdict(told))


def encoded(rows: Any) -> Response:
    """Rows as JSON. For hundreds of rows, FastAPI's own encoder would take ten times as long."""
    return Response(msgspec.json.encode(rows), media_type="application/json")
