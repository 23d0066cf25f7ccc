"""OAuth 2 answers, read with suspicion: shared by all integrations with a token endpoint.

A token that was rotated and cannot be read is lost, so the rule is: an answer that may hide a rotated token is an
unknown outcome, an answer whose token we will not use is refused, and only the integration's own table of errors says
that a grant is dead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

import msgspec

from worker.errors import (
    AppMisconfigured,
    BadPayload,
    BadRequest,
    Forbidden,
    GatewayError,
    OutcomeUnknown,
    RateLimited,
    ReauthRequired,
    Refused,
    Transient,
)
from worker.integrations.kit import json_text
from worker.integrations.kit.base import Caller, RefreshPolicy, TokenAnswer
from worker.integrations.kit.http import Api, Endpoint, read_retry_after
from worker.integrations.kit.taxonomy import Rule, by_code, classify
from worker.integrations.kit.transport import Answer

STANDARD_RULES = (
    *by_code(ReauthRequired, "invalid_grant", "access_denied"),
    *by_code(AppMisconfigured, "invalid_client", "unauthorized_client"),
    # Neither speaks of the client: a scope may be beyond what this one user has granted.
    *by_code(Forbidden, "unsupported_grant_type", "invalid_scope"),
    *by_code(BadRequest, "invalid_request"),
    *by_code(Transient, "temporarily_unavailable", "server_error"),
)
"""RFC 6749 §5.2; integrations put their own rules before these."""

_GATEWAY_STATUSES = frozenset({502, 504, 520, 524})
"""A gateway's words for: what is behind me gave no answer, or none in time. It may have done its work all the same.

504 and 502 are RFC 9110's; 520 and 524 are Cloudflare's. 503 says that the request was not handled.
"""

# Visible ASCII: it goes into a header. The longest tokens known (JWTs with many claims) stay far below 16 KiB.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_MAX_SCOPE = 4000
_TOKENS = ("access_token", "refresh_token")
_WORDS = ("token_type", "expires_in", "scope")


class Callback(NamedTuple):
    """What the authorisation server sent the user back with."""

    code: str
    state: str


def parse_callback(url: str, redirect_uri: str) -> Callback:
    """Reads the URL that the user was sent back to. Its code is decoded exactly once (`%40` → `@`).

    Raises:
        Refused: the user declined, the URL is another one, or it has no code or state.
    """
    parts, expected = urlsplit(url.strip()), urlsplit(redirect_uri)
    if (parts.scheme, parts.netloc, parts.path or "/") != (expected.scheme, expected.netloc, expected.path or "/"):
        raise Refused("this is not the callback URL of the application: paste the whole address that the browser shows")
    # Not parse_qs: it would turn a plus sign within a code into a space.
    pairs = (item.partition("=") for item in parts.query.split("&"))
    values = {unquote(name): unquote(value) for name, _, value in pairs}
    if "error" in values:
        raise Refused("the provider reports that access was not granted: start linking again")
    if not values.get("code") or not values.get("state"):
        raise Refused("the callback URL has no code or no state: paste the whole address that the browser shows")
    return Callback(values["code"], values["state"])


async def ask_token(
    api: Api,
    endpoint: Endpoint,
    caller: Caller,
    *,
    headers: dict[str, str],
    form: dict[str, str],
    rules: Sequence[Rule],
    policy: RefreshPolicy,
) -> TokenAnswer:
    """One request to a token endpoint, never repeated here.

    Raises:
        ProviderError: see `read_token_answer` and `Api.send`; a body too long to read is an unknown outcome.
    """
    try:
        answer = await api.send(endpoint, caller, headers=headers, content=urlencode(form).encode())
    except BadPayload as error:
        if error.reason == "redirect_refused":
            raise
        raise OutcomeUnknown(error.reason) from None
    return read_token_answer(answer, rules, policy)


def read_token_answer(answer: Answer, rules: Sequence[Rule], policy: RefreshPolicy) -> TokenAnswer:
    """Reads the answer of a token endpoint.

    Args:
        answer: any status.
        rules: the integration's own, before `STANDARD_RULES`.
        policy: default and longest lifetime.

    Raises:
        OutcomeUnknown: a success that cannot be read, or without an access token.
        GatewayError: a gateway answered in the provider's place.
        BadPayload: a token that we will not use.
        ProviderError: what the rules say.
    """
    success = 200 <= answer.status < 300
    fields, flags = token_fields(answer.body, _TOKENS, _WORDS if success else None)
    if fields is None:
        # Unreadable errors come from proxies and maintenance pages: never the user's fault.
        if success:
            raise OutcomeUnknown("unreadable_token_answer")
        if answer.status == 429:
            raise RateLimited("http_429", retry_after=read_retry_after(answer.headers))
        if answer.status in _GATEWAY_STATUSES:
            raise _gateway_error(answer)
        raise Transient(f"http_{answer.status}_unreadable")
    if not success or fields.get("error"):
        code, text = fields.get("error"), fields.get("error_description")
        error = classify(
            (*rules, *STANDARD_RULES),
            status=answer.status,
            code=code if isinstance(code, str) else None,
            text=text if isinstance(text, str) else "",
            retry_after=read_retry_after(answer.headers),
        )
        if isinstance(error, Transient) and answer.status in _GATEWAY_STATUSES:
            raise _gateway_error(answer)
        raise error
    if not fields.get("access_token"):
        raise OutcomeUnknown("no_access_token")
    if str(fields.get("token_type") or "bearer").lower() != "bearer":
        raise BadPayload("token_type")
    lifetime, lifetime_flags = read_lifetime(fields.get("expires_in"), policy)
    scope = fields.get("scope")
    return TokenAnswer(
        access_token=checked_token(fields["access_token"], "access_token"),
        refresh_token=checked_token(fields["refresh_token"], "refresh_token") if fields.get("refresh_token") else None,
        lifetime=lifetime,
        scope=_storable(scope) if isinstance(scope, str) else None,
        flags=(*flags, *lifetime_flags),
    )


def _gateway_error(answer: Answer) -> GatewayError:
    return GatewayError(f"http_{answer.status}", retry_after=read_retry_after(answer.headers))


def token_fields(
    body: bytes, tokens: Sequence[str], words: Sequence[str] | None = ()
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The fields of an answer, and flags about what had to be done to read them.

    A strict provider has forgotten the old token when it answers. So a token that is there in full is kept, whatever
    is wrong around it: bytes that are no UTF-8, text after the object, a field of absurd depth or length.

    Args:
        body: the answer.
        tokens: fields that the answer is for, the first of which it must have if it is not in order. Of an answer that
            was cut off it must have all, for what is missing may have been cut off.
        words: other fields that are looked for then; None for an answer that must be in order.

    Returns:
        None where they cannot be read. A token that cannot be read is there, as what no token is.
    """
    fields = _decoded(body)
    if isinstance(fields, dict):
        return fields, ()
    return (None, ()) if words is None else _salvaged(body, tokens, words)


def _decoded(text: bytes) -> Any:
    """What the text says; None if that cannot be read."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(text)  # more forgiving (NaN, lone surrogates): a rotated token must not be lost
        except (ValueError, RecursionError):
            return None


def _salvaged(
    body: bytes, tokens: Sequence[str], words: Sequence[str]
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    found = json_text.members(body)
    if found is None or found.values.get("error", b"null") != b"null":
        return None, ()
    if not found.values.keys() >= set(tokens[:1] if found.ended else tokens):
        return None, ()
    fields: dict[str, Any] = {}
    for name in found.values.keys() & {*tokens, *words}:
        text = found.values[name].decode(errors="replace")
        value = _decoded(text.encode())
        if value is None and text != "null":
            value = text if name in words else [text]
        fields[name] = value
    flags = []
    if not found.ended:
        flags.append("answer_cut")
    if found.rest:
        flags.append("text_after_answer")
    if b"\xef\xbf\xbd" in body.decode(errors="replace").encode():
        flags.append("text_replaced")
    return fields, tuple(flags) or ("answer_mended",)


def _storable(text: str) -> str:
    """A text of the provider's as Postgres can keep it."""
    return text.replace("\x00", "").encode(errors="replace").decode()[:_MAX_SCOPE]


def checked_token(value: object, field: str) -> str:
    """A token that can be sent.

    Raises:
        BadPayload: not a string, too long, or with characters that no header may hold.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise BadPayload(f"{field}_malformed")
    return value


def read_lifetime(value: object, policy: RefreshPolicy) -> tuple[timedelta, tuple[str, ...]]:
    """`expires_in` as a duration, and what had to be done to it.

    What makes no sense (missing, zero, negative, not a number) becomes the integration's default: should it be too
    long, the first refused call refreshes. What is longer than the integration's longest is clamped to it.
    """
    if value is None:
        return policy.default_lifetime, ("expires_in_missing",)
    flags: tuple[str, ...] = ()
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            value = float(str(value))
        except ValueError:
            return policy.default_lifetime, ("expires_in_unreadable",)
        flags = ("expires_in_coerced",)
    if not value > 0:  # or not a number
        return policy.default_lifetime, (*flags, "expires_in_not_positive")
    longest = policy.max_lifetime.total_seconds()
    if value > longest:
        return policy.max_lifetime, (*flags, "expires_in_clamped")
    return timedelta(seconds=value), flags
