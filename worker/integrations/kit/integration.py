"""The base class of every integration: one provider API behind one interface, with defaults.

Refresh is a capability, not a duty; a sync is a stream of pages; cursors belong to feeds (one per login, one per
account, or none). An integration never touches the database and holds no state between calls: whatever must survive is
in the page's cursor, and a sync that broke off anywhere goes on from the committed cursors alone.

The least that a new one says is `key`, `name`, `link_kind` and `settings_class`; the least that it does is `exchange`
and `pages` (and `refresh` where it has a `refresh_policy`). `OAuth2Integration` does all but `pages`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self
from uuid import UUID

import httpx
import msgspec
from pydantic import field_validator

from worker.errors import (
    AccountGone,
    BadPayload,
    BadRequest,
    ConfigurationError,
    Forbidden,
    NotReady,
    ProviderError,
    Scope,
    Transient,
    Unsupported,
)
from worker.integrations.kit.base import Caller, Page, Quota, RefreshPolicy, Renewal, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api, Endpoint, Gate, check_base_url, read_retry_after
from worker.integrations.kit.link_kinds import LinkKind
from worker.integrations.kit.taxonomy import Rule, classify
from worker.integrations.kit.transport import Answer
from worker.settings import EnvironmentSettings, load
from worker.telemetry.redaction import remember_shapes

_TROUBLE_OF_AN_ACCOUNT = (Transient, BadRequest, BadPayload, AccountGone, Forbidden)
_TROUBLE_OF_A_PART = (Transient, BadRequest, BadPayload, NotReady, Unsupported)


class IntegrationSettings(EnvironmentSettings):
    """How this application is known to a provider; each integration has a class of its own with its `env_prefix`."""

    base_url: str
    """Where its API is: https, or http on this machine."""

    @field_validator("base_url")
    @classmethod
    def _https(cls, value: str) -> str:
        try:
            check_base_url(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value


class Integration:
    """One provider API.

    Args:
        settings: an instance of `settings_class`.
        api: the only way out.

    Attributes:
        key: `provider_key` of the logins that it serves.
        name: shown to people.
        provider_type: `brokerage`, `bank`, `aggregator`, …; shown to people who choose.
        description: a sentence for them; the link kind's title where there is none.
        nouns: what it syncs.
        link_kind: how a login is linked, and the form that asks for what that takes.
        settings_class: its variables, each `<env_prefix><name>`.
        refresh_policy: None when its tokens are not refreshed.
        quotas: limits that the provider publishes.
        mapping_version: raised whenever mapping changes, so that stored rows are read anew.
        error_rules: what the provider's errors mean, read from the top.
        secret_shapes: regular expressions of its tokens and keys: what matches is masked wherever it is written.
        memory_feeds: feeds whose cursor is no position but something that is remembered for good: a full sync keeps it,
            and every run reads what it belongs to.
        harmless: reasons of `Unsupported` that most logins meet, so that they are no problem of a run.
        correlation_header: the answer's header that names the request in the provider's own logs.
        can_renew: a user can renew the consent in place, and the token stays what it is (`begin_renewal`).
    """

    key: ClassVar[str]
    name: ClassVar[str]
    provider_type: ClassVar[str] = "other"
    description: ClassVar[str] = ""
    nouns: ClassVar[tuple[str, ...]] = ("accounts", "balances", "transactions")
    link_kind: ClassVar[LinkKind]
    settings_class: ClassVar[type[IntegrationSettings]]
    refresh_policy: ClassVar[RefreshPolicy | None] = None
    quotas: ClassVar[tuple[Quota, ...]] = ()
    mapping_version: ClassVar[int] = 1
    error_rules: ClassVar[tuple[Rule, ...]] = ()
    secret_shapes: ClassVar[tuple[str, ...]] = ()
    memory_feeds: ClassVar[frozenset[str]] = frozenset()
    harmless: ClassVar[frozenset[str]] = frozenset()
    correlation_header: ClassVar[str] = "x-request-id"
    can_renew: ClassVar[bool] = False

    def __init__(self, settings: Any, api: Api) -> None:
        self.settings = settings
        self.api = api

    def __init_subclass__(cls, **more: Any) -> None:
        """Its secrets are masked from the moment at which its code can run."""
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
        """From the environment.

        Args:
            total_seconds: deadline of one call.
            max_bytes: longest body that is read.
            gate: our own budget of calls.
            transport: for tests.

        Raises:
            ConfigurationError: names the variables.
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
        )
        return cls(settings, api)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.api.aclose()

    # Linking

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the user back to, as registered (`link_kind.redirects`)."""
        raise Unsupported("consent_by_link")

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        """Where the user consents (`link_kind.redirects`).

        Args:
            state: comes back with the user.
            challenge: S256 of the code verifier, where `link_kind.pkce`.

        Raises:
            Unsupported: this integration is not linked by an address.
        """
        raise Unsupported("consent_by_link")

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Turns what the user gave into a credential.

        Args:
            caller: on whose behalf.
            form: the values of `link_kind.fields` by name; where it redirects, `code` (and `code_verifier`) instead.
            now: by the database's clock.

        Raises:
            ProviderError: the provider did not take it.
        """
        raise Unsupported("exchange")

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        """Presents the refresh token once.

        Raises:
            Unsupported: its tokens do not expire (`refresh_policy` None).
            ReauthRequired: the grant is dead.
            AppMisconfigured: our own credential is refused.
            Forbidden: refused without a word on whose account.
            OutcomeUnknown: sent, and no readable answer came: the token may have been used up.
            GatewayError: sent, and a gateway answered in the provider's place: the same.
            Unsent: it never left.
            RateLimited, Transient, …: not acted upon; the token is unharmed.
        """
        raise Unsupported("tokens_do_not_expire")

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Ends the grant at the provider. False when the provider has no way to do so."""
        return False

    async def begin_renewal(self, caller: Caller, *, access_token: str, user_id: UUID) -> Renewal:
        """What the front end needs to let the user renew the consent in place (`can_renew`).

        Args:
            caller: on whose behalf.
            access_token: of the login.
            user_id: our id of its user.

        Raises:
            ReauthRequired: the login cannot be renewed; it must be linked again.
            ProviderError: the provider did not answer as it should.
        """
        raise Unsupported("renewal")

    async def complete_renewal(self, caller: Caller, *, access_token: str) -> TokenAnswer:
        """The same token with the new end of its consent, once the user has renewed it (`can_renew`).

        Raises:
            ReauthRequired: the login still needs its user.
            ProviderError: the provider did not answer as it should.
        """
        raise Unsupported("renewal")

    # Reading

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Everything new since the cursors, page by page.

        A page is asked for while the one before is stored; a page that could not be stored is asked for again, from
        the committed cursors. Raises `AccessExpired`, `PagingRestart` and all others of
        `ProviderError` that stop the whole sync.
        """
        raise Unsupported("pages")

    async def get(
        self,
        request: SyncRequest,
        endpoint: Endpoint,
        params: Mapping[str, str] | None = None,
        *,
        account_key: str | None = None,
        rules: tuple[Rule, ...] | None = None,
    ) -> bytes:
        """The body that an endpoint answers to a call with the access token as `Bearer`.

        Args:
            request: the sync.
            endpoint: where.
            params: of the query.
            account_key: whose account it is about, for quotas by account.
            rules: instead of `error_rules`.
        """
        answer = await self.api.read(
            endpoint,
            request.caller,
            check=lambda answer: self.check(answer, rules),
            headers={"authorization": f"Bearer {request.access_token}"},
            params=params,
            account_key=account_key,
        )
        return answer.body

    def check(self, answer: Answer, rules: tuple[Rule, ...] | None = None) -> None:
        """Raises what an answer other than 200 means, by `rules` or else `error_rules`."""
        if answer.status != 200:
            raise self.error_of(answer, self.error_rules if rules is None else rules)

    def error_of(self, answer: Answer, rules: tuple[Rule, ...]) -> ProviderError:
        """What an unwanted answer means. By default its JSON has `error` and `error_description` or `message`."""
        try:
            given = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            given = None
        fields = given if isinstance(given, dict) else {}
        code, text = fields.get("error"), fields.get("error_description") or fields.get("message")
        return classify(
            rules,
            status=answer.status,
            code=code if isinstance(code, str) else None,
            text=text if isinstance(text, str) else "",
            retry_after=read_retry_after(answer.headers),
        )

    async def part(
        self, pages: AsyncIterator[Page], *, account_key: str | None = None, ready_again: timedelta | None = None
    ) -> AsyncIterator[Page]:
        """The pages of one account or product; trouble with it is a problem of the run, and the others go on.

        Args:
            pages: its pages.
            account_key: whose account it is, where it is one account's.
            ready_again: after how long a part that is `NotReady` is asked for again, if it does not say.
        """
        passing = _TROUBLE_OF_A_PART if account_key is None else _TROUBLE_OF_AN_ACCOUNT
        try:
            async for page in pages:
                yield page
        except passing as error:
            if account_key is not None:
                error.scope, error.account_key = Scope.ACCOUNT, account_key
            if isinstance(error, NotReady):
                error.retry_after = error.retry_after or ready_again
            if not (isinstance(error, Unsupported) and error.reason in self.harmless):
                yield Page(problems=(error,))


def missing_of(integration: type[Integration]) -> list[str]:
    """What a class must have and does not: names of attributes and methods, in the order of the base class."""
    lacks = [name for name in ("key", "name", "link_kind", "settings_class") if not hasattr(integration, name)]
    kind = getattr(integration, "link_kind", None)
    methods = ["exchange", "pages"]
    if integration.refresh_policy is not None:
        methods.append("refresh")
    if isinstance(kind, LinkKind) and kind.redirects:
        methods += ["authorize_url", "redirect_uri"]
    if integration.can_renew:
        methods += ["begin_renewal", "complete_renewal"]
    return lacks + [name for name in methods if getattr(integration, name) is getattr(Integration, name)]
