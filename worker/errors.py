"""Every error that this project raises on purpose.

DashtamError
├── ConfigurationError          startup is refused; names the variable, never its value
├── NotFound                    an id that no row has
├── BadArgument                 what was given means nothing, or more than one thing
├── Refused                     the present state does not allow this; says what would
│   └── Taken                   the name is in use already
├── NotAuthenticated            no valid API key came with the request
├── NotPermitted                the key may not do this, or the row is another user's
├── EncryptionError             a ciphertext that no key opens, or that belongs to another row
├── Fenced                      another worker took over; nothing was written
├── Unavailable                 Postgres or Redis is out of reach just now
├── Undelivered                 a notice did not leave; says whether to try again
├── BadRecord                   one record of a page cannot be trusted; it goes to quarantine
└── ProviderError               what a provider's answer means, with its scope
    ├── AccessExpired           the access token is refused: refresh once and go on
    ├── ReauthRequired          the grant is dead: only the user can repair it
    ├── Forbidden               a call is refused, and nothing says whether the login or our application is the reason
    ├── AppMisconfigured        our client credentials or product are refused: only the operator can repair it
    ├── RateLimited             try again after `retry_after`
    ├── InstitutionDown         the bank behind the provider is out
    ├── Transient               worth trying again
    │   ├── Unsent              the request has never left this machine
    │   └── OutcomeUnknown      the request may have been acted upon, and no answer says so
    │       └── GatewayError    the same, and a gateway has answered in the provider's place
    ├── NotReady                the provider is still preparing the data
    ├── PagingRestart           start again from the loop's first cursor
    ├── CursorRefused           a stored cursor means nothing there: all must be read again
    ├── AccountGone             one account no longer exists there
    ├── Unsupported             this login has no such product
    ├── BadRequest              we asked wrongly; asking again will not help
    └── BadPayload              an answer that cannot be read as what it should be
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar


class Scope(StrEnum):
    """How far an error reaches, widest first."""

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
        exit_code: of a process that refuses to start for it.
    """

    exit_code: ClassVar[int] = 5


class NotFound(DashtamError):  # noqa: N818 - reads better where it is raised
    """No row has this id."""


class BadArgument(DashtamError):  # noqa: N818
    """What was given means nothing, or more than one thing; the message says how to name one thing."""


class Refused(DashtamError):  # noqa: N818
    """The present state does not allow the action; the message says what would."""


class Taken(Refused):
    """The name is in use already; nothing was changed."""


class NotAuthenticated(DashtamError):  # noqa: N818
    """No API key came with the request, or one that is unknown, revoked or expired."""


class NotPermitted(DashtamError):  # noqa: N818
    """The API key may not do this, or the row belongs to another user."""


class EncryptionError(DashtamError):
    """A ciphertext that no configured key opens, or that is bound to another row, kind or generation."""


class Fenced(DashtamError):  # noqa: N818
    """Another worker has taken over this token or run; this one's write was refused and nothing changed."""


class Unavailable(DashtamError):  # noqa: N818
    """Postgres or Redis could not be reached; pending work is kept.

    Attributes:
        server: `postgres` or `redis` when that server itself is the reason; else empty.
        silent: it took the question and gave no answer, so that it is not down but stands still.
    """

    def __init__(self, message: str, *, server: str = "", silent: bool = False) -> None:
        super().__init__(message)
        self.server = server
        self.silent = silent


class BadRecord(DashtamError):  # noqa: N818
    """One record cannot be trusted.

    Attributes:
        reason: short stable word for counting, for example `amount_not_finite`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason

    @classmethod
    def of(cls, error: Exception) -> BadRecord:
        """`error` as the fault of the one record whose reading raised it; of a stranger, only the name is kept."""
        return error if isinstance(error, cls) else cls(f"mapping_failed:{type(error).__name__}")


class Undelivered(DashtamError):  # noqa: N818
    """A notice did not leave.

    Attributes:
        permanent: trying again will not help.
    """

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class ProviderError(DashtamError):
    """What a provider's answer, or its silence, means.

    Attributes:
        kind: stable word stored with attempts and runs.
        scope: how far the trouble reaches.
        reason: the provider's own code, sanitised and short; safe to store and show.
        retry_after: not sooner, counted from the answer, when the provider said so; a span, since clocks differ.
        account_key: provider's account id, for errors of one account.
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
    ) -> None:
        super().__init__(f"{self.kind} ({reason})")
        self.reason = reason
        self.scope = scope or self.default_scope
        self.retry_after = retry_after
        self.account_key = account_key


class AccessExpired(ProviderError):  # noqa: N818
    """The access token is refused on a data call."""

    kind = "access_expired"


class ReauthRequired(ProviderError):  # noqa: N818
    """The grant is dead, revoked or expired."""

    kind = "reauth_required"


class Forbidden(ProviderError):  # noqa: N818
    """A call is refused without a word on whose account.

    It may be this login or account alone, or a page of a firewall; so it counts against the login. Only when several
    logins meet it within a while is it taken for trouble of the whole application.
    """

    kind = "forbidden"


class AppMisconfigured(ProviderError):  # noqa: N818
    """The provider refuses our application, not the user."""

    kind = "app_misconfigured"
    default_scope = Scope.APP


class RateLimited(ProviderError):  # noqa: N818
    """Over a quota. `retry_after` is None when the provider named no time, or none that lies ahead."""

    kind = "rate_limited"
    default_scope = Scope.APP


class InstitutionDown(ProviderError):  # noqa: N818
    """The institution behind the provider does not answer."""

    kind = "institution_down"
    default_scope = Scope.INSTITUTION


class Transient(ProviderError):  # noqa: N818
    """A failure that may pass by itself; the request was not acted upon."""

    kind = "transient"
    default_scope = Scope.REQUEST


class Unsent(Transient):
    """The request has provably never left this machine."""

    kind = "not_sent"


class OutcomeUnknown(Transient):
    """The request was sent and may have been acted upon; no readable answer came."""

    kind = "outcome_unknown"


class GatewayError(OutcomeUnknown):
    """A gateway answered in the provider's place: it was given no answer, or none in time, or reached nobody at all."""

    kind = "gateway_error"


class NotReady(ProviderError):  # noqa: N818
    """The provider is still preparing the data."""

    kind = "not_ready"


class PagingRestart(ProviderError):  # noqa: N818
    """The books changed under the pages; start again from the loop's first cursor.

    Attributes:
        feed: the feed whose loop must restart.
    """

    kind = "paging_restart"

    def __init__(self, reason: str, *, feed: str) -> None:
        super().__init__(reason)
        self.feed = feed


class CursorRefused(ProviderError):  # noqa: N818
    """A stored cursor means nothing to the provider: it was given for another login, or is forgotten there.

    Attributes:
        feed: the feed whose cursor it is.
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
    """We asked wrongly; the same request will fail again."""

    kind = "bad_request"
    default_scope = Scope.REQUEST


class BadPayload(ProviderError):  # noqa: N818
    """The answer is not what the provider's interface promises."""

    kind = "bad_payload"
    default_scope = Scope.REQUEST
