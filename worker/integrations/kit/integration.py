"""The base class of every integration: one interface, with defaults, for all provider APIs.

An integration may offer refreshes or not. A sync is a sequence of pages. Cursors belong to feeds (one per login, one
per account, or none). An integration never uses the database and keeps no state between calls: everything that a later
call needs is in a page's cursor, so that an interrupted sync can continue with only the committed cursors.

A new integration must define at least `key`, `name`, `link_kind` and `settings_class`, and the methods `exchange` and
`pages` (and `refresh` if it has a `refresh_policy`). `OAuth2Integration` has everything except `pages`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self
from uuid import UUID

import httpx

from worker.errors import Unsupported
from worker.integrations.kit.base import (
    Caller,
    FileReading,
    FormToken,
    Page,
    Quota,
    RefreshPolicy,
    Standing,
    SyncRequest,
    TokenAnswer,
)
from worker.integrations.kit.calls import Calls
from worker.integrations.kit.consent import Consent
from worker.integrations.kit.hooks import Hooks
from worker.integrations.kit.http import Api, Gate
from worker.integrations.kit.link_kinds import LinkKind
from worker.integrations.kit.settings import IntegrationSettings
from worker.models.records import AccountRecord
from worker.settings import load
from worker.telemetry.redaction import remember_shapes


class Integration(Consent, Calls):
    """One provider API. How its calls are made and what its errors mean is in `Calls`.

    Args:
        settings: an instance of `settings_class`.
        api: the HTTP client for all calls.

    Attributes:
        key: `provider_key` of the logins that it serves.
        name, domain: the name that people see; the domain of its institution or aggregator.
        provider_type: `brokerage`, `bank`, `aggregator`, …; shown to people who choose an integration.
        description: a sentence shown to them; where it is empty, the link kind's title is shown.
        nouns: the tables that it syncs.
        link_kind: how a login is linked, and the form that the user fills in for it.
        settings_class: its environment variables, each named `<env_prefix><name>`.
        refresh_policy: None when its tokens are not refreshed.
        quotas: limits that the provider publishes.
        shortest_interval: a sync that has read anything is not repeated earlier than this, unless a person asks for it.
        usual_interval: the time between successful syncs is at least this, unless the login has an interval of its own.
        mapping_version: must be raised whenever the mapping changes, so that stored rows are read again.
        secret_shapes: regular expressions for its tokens and keys; text that matches is masked wherever it is written.
        memory_feeds: feeds whose cursor is not a position but data that is kept for good: a full sync keeps it, and
            every run reads the data that it belongs to.
        reads_files: its data comes in files (`of_file`): it is never due for a sync, and nothing is withdrawn because a
            file does not list it.
        correlation_header: the answer's header with the id that the request has in the provider's logs.
        varying: a regular expression for what differs in each answer although nothing has happened, such as the id of
            the request. Without it, every sync takes the answers apart and compares them record by record.
        can_renew: a user can renew the consent without a new token (`begin_renewal`).
        can_check: the provider can be asked whether a login works (`check_login`) and for hooks (`ask_for_hooks`).
        can_list_accounts: the accounts of a new grant can be listed (`list_accounts`), so that a login is not linked a
            second time by mistake. For providers that give the same login another id with each link.
        hook_url: the address for hooks that a new link asks for; None if it asks for none.
        hooks: how the provider's hooks are verified and read; None if the provider sends none.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    domain: ClassVar[str] = ""
    provider_type: ClassVar[str] = "other"
    description: ClassVar[str] = ""
    nouns: ClassVar[tuple[str, ...]] = ("accounts", "balances", "transactions")
    link_kind: ClassVar[LinkKind]
    settings_class: ClassVar[type[IntegrationSettings]]
    refresh_policy: ClassVar[RefreshPolicy | None] = None
    quotas: ClassVar[tuple[Quota, ...]] = ()
    shortest_interval: ClassVar[timedelta] = timedelta(0)
    usual_interval: ClassVar[timedelta] = timedelta(0)
    mapping_version: ClassVar[int] = 1
    secret_shapes: ClassVar[tuple[str, ...]] = ()
    memory_feeds: ClassVar[frozenset[str]] = frozenset()
    correlation_header: ClassVar[str] = "x-request-id"
    varying: ClassVar[bytes | None] = None
    reads_files: ClassVar[bool] = False
    can_renew: ClassVar[bool] = False
    can_check: ClassVar[bool] = False
    can_list_accounts: ClassVar[bool] = False
    hook_url: str | None = None
    hooks: Hooks | None = None

    def __init__(self, settings: Any, api: Api) -> None:
        self.settings = settings
        self.api = api

    def __init_subclass__(cls, **more: Any) -> None:
        """Registers `secret_shapes`, so that secrets are masked before any code of the integration can run."""
        super().__init_subclass__(**more)
        remember_shapes(cls.secret_shapes)

    @classmethod
    def build(
        cls,
        *,
        total_seconds: float,
        max_bytes: int,
        gate: Gate | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> Self:
        """Builds the integration with settings from the environment.

        Args:
            total_seconds: deadline of one call.
            max_bytes: size of the longest body that is read.
            gate: our own budget of calls.
            transport: replaces the network in tests.

        Raises:
            ConfigurationError: a setting is missing or wrong; the text names the variables.
        """
        settings = load(cls.settings_class)
        api = Api(
            settings.base_url,
            name=cls.key,
            total_seconds=total_seconds,
            max_bytes=max_bytes,
            gate=gate,
            transport=transport,
            correlation_header=cls.correlation_header,
            varying=cls.varying,
        )
        return cls(settings, api)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.api.aclose()

    # Linking; how a user consents is in `Consent`

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Turns what the user gave into a token.

        Args:
            caller: the login for which the call is made.
            form: the values of `link_kind.fields` by name; if the link kind redirects, `code` (and `code_verifier`).
            now: the present time by the database's clock.

        Raises:
            ProviderError: the provider did not accept it.
        """
        raise Unsupported("exchange")

    async def list_accounts(self, caller: Caller, *, access_token: str) -> Sequence[AccountRecord]:
        """The accounts of a grant that is not stored yet (`can_list_accounts`): those of the first page.

        Raises:
            ProviderError: they cannot be listed.
        """
        request = SyncRequest(caller=caller, access_token=access_token, cursors={}, now=datetime.now(UTC))
        return (await anext(self.pages(request), Page())).accounts

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        """Sends the refresh token once.

        Raises:
            Unsupported: its tokens do not expire (`refresh_policy` is None).
            ReauthRequired: the grant has ended.
            AppMisconfigured: the provider refuses this application's own credential.
            Forbidden: the provider refuses and does not say whether the login or this application is the cause.
            OutcomeUnknown: the request was sent, and no readable answer came. The refresh token may have been used up.
            GatewayError: the request was sent, and a gateway answered instead of the provider. The refresh token may
                have been used up.
            Unsent: the request was not sent.
            RateLimited, Transient, …: the provider did not act on the request; the refresh token is still valid.
        """
        raise Unsupported("tokens_do_not_expire")

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Ends the grant at the provider. Returns False when the provider's API cannot do this."""
        return False

    async def begin_renewal(self, caller: Caller, *, access_token: str, user_id: UUID) -> FormToken:
        """The data with which the front end lets the user renew the consent (`can_renew`).

        Args:
            caller: the login for which the call is made.
            access_token: the login's access token.
            user_id: our id of the login's user.

        Raises:
            ReauthRequired: the login cannot be renewed; it must be linked again.
            ProviderError: the call failed.
        """
        raise Unsupported("renewal")

    async def complete_renewal(self, caller: Caller, *, access_token: str) -> TokenAnswer:
        """The same token with the new end of its consent, once the user has renewed it (`can_renew`).

        Raises:
            ReauthRequired: the user has not renewed the consent yet.
            ProviderError: the call failed.
        """
        raise Unsupported("renewal")

    # Hooks

    async def check_login(self, caller: Caller, *, access_token: str) -> Standing:
        """Asks whether a login works (`can_check`). Raises `ReauthRequired` if it needs its user."""
        raise Unsupported("check")

    async def ask_for_hooks(self, caller: Caller, *, access_token: str, url: str) -> None:
        """Asks the provider to send the hooks about a login to this address. Raises `ProviderError` (`can_check`)."""
        raise Unsupported("hooks")

    # Reading

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Everything new since the cursors, page by page.

        The next page is requested while the one before it is being stored. If a page could not be stored, `pages` is
        called again with the committed cursors.

        Raises:
            AccessExpired: the access token has expired.
            PagingRestart: the loop must start again from its beginning.
            ProviderError: another failure that stops the whole sync.
        """
        raise Unsupported("pages")

    def of_file(self, content: bytes, options: Mapping[str, str]) -> FileReading:
        """Takes a file apart, and returns what is in it with the integration whose `pages` give it (`reads_files`).

        Args:
            content: the whole file.
            options: what the user says about the file, as the integration's documentation names it.

        Raises:
            Refused: the file cannot be read; says what is wrong with it and what to do. Nothing was stored.
        """
        raise Unsupported("files")
