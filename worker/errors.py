"""Every error that this project raises on purpose.

DashtamError
├── ConfigurationError          startup is refused; names the variable, never its value
├── NotFound                    an id that no row has
├── BadArgument                 what was given names nothing, or more than one thing
├── Refused                     the present state does not allow this; says what would allow it
│   ├── Taken                   the name is in use already
│   └── Declined                the user did not give consent
├── NotAuthenticated            no valid API key came with the request
├── NotPermitted                the key may not do this, or the row is another user's
├── EncryptionError             no key decrypts a ciphertext, or it belongs to another row
├── Fenced                      another worker took over; nothing was written
├── Unavailable                 Postgres or Redis is out of reach now
├── Undelivered                 a notice could not be sent; says whether to try again
├── HookRefused                 a provider's hook is not signed as it must be, or comes too late
├── BadRecord                   one record of a page cannot be trusted; it goes to quarantine
└── ProviderError               what a provider's answer means, with its scope
    ├── AccessExpired           the access token is refused: refresh it once and continue
    ├── ReauthRequired          the grant has ended: only the user can repair it
    ├── Forbidden               a call is refused, and it is unknown whether the login or our application is the cause
    ├── AppMisconfigured        our client credentials or product are refused: only the operator can repair it
    ├── RateLimited             try again after `retry_after`
    ├── InstitutionDown         the institution behind the provider does not answer
    ├── Transient               a failure that may pass by itself: try again
    │   ├── Unsent              the request was never sent
    │   └── OutcomeUnknown      no answer came, so the provider may have processed the request
    │       └── GatewayError    the same, and a gateway has answered instead of the provider
    ├── NotReady                the provider is still preparing the data
    ├── PagingRestart           start again from the loop's first cursor
    ├── CursorRefused           the provider does not accept a stored cursor: all must be read again
    ├── AccountGone             one account no longer exists at the provider
    ├── Unsupported             this login has no such product
    ├── BadRequest              our request was wrong; sending it again will not help
    │   └── BadEntry            what a person has entered cannot be right; nothing was sent
    └── BadPayload              an answer that cannot be read as what it should be
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar


class Scope(StrEnum):
    """What an error affects, from the widest to the narrowest."""

    APP = "app"
    INSTITUTION = "institution"
    PROVIDER = "provider"
    ACCOUNT = "account"
    REQUEST = "request"


class DashtamError(Exception):
    """Base of all errors raised on purpose. The message is safe to log and to show."""


class ConfigurationError(DashtamError):
    """The configuration is missing something or unsafe. Names the variable, never its value.

    Attributes:
        exit_code: exit status of a process that refuses to start because of this error.
    """

    exit_code: ClassVar[int] = 5


class NotFound(DashtamError):  # noqa: N818 - reads better where it is raised
    """No row has this id."""


class BadArgument(DashtamError):  # noqa: N818
    """What was given names nothing, or more than one thing; the message says how to name one thing."""


class Refused(DashtamError):  # noqa: N818
    """The present state does not allow the action; the message says what would allow it.

    Services do not know who reads the message. What allows the action is one thing on the command line and another over
    HTTP, so each of them adds its own words.

    Attributes:
        for_operators: what the command line adds, ending with a command; may be empty.
        for_clients: what the HTTP API adds, in its own terms; may be empty.
    """

    def __init__(self, message: str, *, for_operators: str = "", for_clients: str = "") -> None:
        super().__init__(message)
        self.for_operators = for_operators
        self.for_clients = for_clients


class Taken(Refused):
    """The name is in use already; nothing was changed."""


class Declined(Refused):
    """The user did not give consent at the provider; nothing was linked."""


class NotAuthenticated(DashtamError):  # noqa: N818
    """The request had no API key, or one that is unknown, revoked or expired."""


class NotPermitted(DashtamError):  # noqa: N818
    """The API key may not do this, or the row belongs to another user."""


class EncryptionError(DashtamError):
    """No configured key decrypts a ciphertext, or it is bound to another row, kind or generation."""


class Fenced(DashtamError):  # noqa: N818
    """Another worker has taken over this token or run. This worker's write was refused and nothing changed."""


class Unavailable(DashtamError):  # noqa: N818
    """Postgres or Redis could not be reached; pending work is kept.

    Attributes:
        server: the cause: `postgres`, `standby`, `pooler`, `redis` or `rabbitmq`; `schema` or `roles` when Postgres
            lacks tables or rights that this version needs; otherwise empty.
        silent: the server accepted the request and did not answer: it hangs, but is not down.
    """

    def __init__(self, message: str, *, server: str = "", silent: bool = False) -> None:
        super().__init__(message)
        self.server = server
        self.silent = silent


class BadRecord(DashtamError):  # noqa: N818
    """One record cannot be trusted.

    Attributes:
        reason: short stable word, used for counting, for example `amount_not_finite`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason

    @classmethod
    def of(cls, error: Exception) -> BadRecord:
        """Makes a `BadRecord` from the error that reading one record raised.

        Of an error that is not a `BadRecord`, only the class name is kept: its message may contain personal data.
        """
        return error if isinstance(error, cls) else cls(f"mapping_failed:{type(error).__name__}")


class Undelivered(DashtamError):  # noqa: N818
    """A notice could not be sent.

    Attributes:
        permanent: trying again will not help.
    """

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class HookRefused(DashtamError):  # noqa: N818
    """A hook cannot be trusted: its signature is missing or wrong, or it comes too late. Nothing of it was used.

    Attributes:
        reason: short stable word, used for counting, for example `signature_wrong`. It contains nothing of the hook.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderError(DashtamError):
    """What a provider's answer means, or what it means that there was none.

    Attributes:
        kind: stable word stored with attempts and runs.
        scope: what the error affects.
        reason: a code, the provider's own or ours, short and sanitised; safe to store and show.
        retry_after: time to wait, counted from the answer, when the provider named one; a span, since clocks differ.
        account_key: the provider's account id, for errors of one account.

    Its text has kind and reason, or is what `says` says: a sentence for a person who waits for the answer.
    """

    kind: ClassVar[str] = "provider_error"
    default_scope: ClassVar[Scope] = Scope.PROVIDER

    def __init__(
        self,
        reason: str,
        *,
        scope: Scope | None = None,
        retry_after: timedelta | None = None,
        account_key: str | None = None,
        says: str = "",
    ) -> None:
        super().__init__(says or f"{self.kind} ({reason})")
        self.reason = reason
        self.scope = scope or self.default_scope
        self.retry_after = retry_after
        self.account_key = account_key


class AccessExpired(ProviderError):  # noqa: N818
    """The access token is refused on a data call."""

    kind = "access_expired"


class ReauthRequired(ProviderError):  # noqa: N818
    """The grant is invalid, revoked or expired."""

    kind = "reauth_required"


class Forbidden(ProviderError):  # noqa: N818
    """A call is refused, and the answer does not say whether the login or our application is the cause.

    It may concern this login or account alone, or it may be a firewall's page. So it counts against the login. Only
    when several logins are refused within a short time is it treated as an error of the whole application.
    """

    kind = "forbidden"


class AppMisconfigured(ProviderError):  # noqa: N818
    """The provider refuses our application, not the user."""

    kind = "app_misconfigured"
    default_scope = Scope.APP


class RateLimited(ProviderError):  # noqa: N818
    """A quota is used up. `retry_after` is None when the provider named no time, or one that has passed."""

    kind = "rate_limited"
    default_scope = Scope.APP


class InstitutionDown(ProviderError):  # noqa: N818
    """The institution behind the provider does not answer."""

    kind = "institution_down"
    default_scope = Scope.INSTITUTION


class Transient(ProviderError):  # noqa: N818
    """A failure that may pass by itself; the provider did not process the request."""

    kind = "transient"
    default_scope = Scope.REQUEST


class Unsent(Transient):
    """The request was certainly never sent."""

    kind = "not_sent"


class OutcomeUnknown(Transient):
    """The request was sent and the provider may have processed it; no readable answer came."""

    kind = "outcome_unknown"


class GatewayError(OutcomeUnknown):
    """A gateway answered instead of the provider: it got no answer in time, or could not reach the provider."""

    kind = "gateway_error"


class NotReady(ProviderError):  # noqa: N818
    """The provider is still preparing the data."""

    kind = "not_ready"


class PagingRestart(ProviderError):  # noqa: N818
    """The provider's data changed while its pages were read; start again from the loop's first cursor.

    Attributes:
        feed: the feed whose loop must restart.
    """

    kind = "paging_restart"

    def __init__(self, reason: str, *, feed: str) -> None:
        super().__init__(reason)
        self.feed = feed


class CursorRefused(ProviderError):  # noqa: N818
    """The provider does not accept a stored cursor: it belongs to another login, or has been deleted there.

    Attributes:
        feed: the feed that the cursor belongs to.
    """

    kind = "cursor_refused"

    def __init__(self, reason: str, *, feed: str) -> None:
        super().__init__(reason)
        self.feed = feed


class AccountGone(ProviderError):  # noqa: N818
    """One account no longer exists at the provider."""

    kind = "account_gone"
    default_scope = Scope.ACCOUNT


class Unsupported(ProviderError):  # noqa: N818
    """The login has no such product or data."""

    kind = "unsupported"


class BadRequest(ProviderError):  # noqa: N818
    """Our request was wrong; the same request will fail again."""

    kind = "bad_request"
    default_scope = Scope.REQUEST


class BadEntry(BadRequest):
    """What a person has entered cannot be what the provider gives; nothing was sent."""

    kind = "bad_entry"


class BadPayload(ProviderError):  # noqa: N818
    """The answer cannot be read as what the provider documents."""

    kind = "bad_payload"
    default_scope = Scope.REQUEST
