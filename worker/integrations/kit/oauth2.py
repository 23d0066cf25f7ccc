"""Reads the answers of OAuth 2 token endpoints, for all integrations that have one.

A rotated token that cannot be read is lost. Therefore: an answer that may contain a rotated token but cannot be read is
an unknown outcome; an answer with a token that cannot be used is refused; and only the integration's own table of
errors decides that a grant has ended.
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
    Declined,
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
    # Neither means that our application is misconfigured: this one user may not have granted the scope.
    *by_code(Forbidden, "unsupported_grant_type", "invalid_scope"),
    *by_code(BadRequest, "invalid_request"),
    *by_code(Transient, "temporarily_unavailable", "server_error"),
)
"""The errors of RFC 6749 §5.2; integrations put their own rules before these."""

_GATEWAY_STATUSES = frozenset({502, 504, 520, 524})
"""With these, a gateway says that the server behind it gave no valid answer in time. The server may have acted anyway.

502 and 504 are from RFC 9110; 520 and 524 are Cloudflare's. 503 is not here: it says that the request was not handled.
"""

# Visible ASCII, because a token is sent in a header. The longest known tokens (JWTs with many claims) are far shorter
# than 16 KiB.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_MAX_SCOPE = 4000
_TOKENS = ("access_token", "refresh_token")
_WORDS = ("token_type", "expires_in", "scope")


class Callback(NamedTuple):
    """The parameters with which the authorization server sent the user back."""

    code: str
    state: str


def parse_callback(url: str, redirect_uri: str) -> Callback:
    """Reads the URL to which the user was sent back. Its code is URL-decoded exactly once (`%40` → `@`).

    Raises:
        Declined: the user did not give consent.
        Refused: the provider reports another error; or it is not the redirect URI, or it has no code or state.
    """
    parts, expected = urlsplit(url.strip()), urlsplit(redirect_uri)
    if (parts.scheme, parts.netloc, parts.path or "/") != (expected.scheme, expected.netloc, expected.path or "/"):
        raise Refused("this is not the callback URL of the application: paste the whole address that the browser shows")
    # parse_qs cannot be used: it would turn a plus sign in a code into a space.
    pairs = (item.partition("=") for item in parts.query.split("&"))
    values = {unquote(name): unquote(value) for name, _, value in pairs}
    if "error" in values:
        told = "the provider reports that access was not granted: start linking again"
        raise Declined(told) if values["error"] == "access_denied" else Refused(told)
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
    login_id: Sequence[str] = (),
) -> TokenAnswer:
    """Sends one request to a token endpoint, without any retry, and reads the answer.

    Raises:
        ProviderError: see `read_token_answer` and `Api.send`; `OutcomeUnknown` if the body is too long to read.
    """
    try:
        answer = await api.send(endpoint, caller, headers=headers, content=urlencode(form).encode())
    except BadPayload as error:
        if error.reason == "redirect_refused":
            raise
        raise OutcomeUnknown(error.reason) from None
    return read_token_answer(answer, rules, policy, login_id)


def read_token_answer(
    answer: Answer, rules: Sequence[Rule], policy: RefreshPolicy, login_id: Sequence[str] = ()
) -> TokenAnswer:
    """Reads the answer of a token endpoint.

    Args:
        answer: the answer, with any status.
        rules: the integration's own rules; they come before `STANDARD_RULES`.
        policy: gives the default and the longest lifetime.
        login_id: the members of the answer that lead to the provider's own id of the login.

    Raises:
        OutcomeUnknown: the call succeeded, but the answer cannot be read or has no access token.
        GatewayError: a gateway answered instead of the provider.
        BadPayload: the answer has a token that cannot be used.
        ProviderError: the error that the rules give for this answer.
    """
    success = 200 <= answer.status < 300
    fields, flags = token_fields(answer.body, _TOKENS, _WORDS if success else None)
    if fields is None:
        # Errors that cannot be read come from proxies and maintenance pages; they do not mean that the grant has ended.
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
        external_id=_member(fields, login_id),
        flags=(*flags, *lifetime_flags),
    )


def _member(fields: Any, path: Sequence[str]) -> str | None:
    """The text to which the path leads; None if it leads to none, or if the path is empty."""
    for name in path:
        fields = fields.get(name) if isinstance(fields, dict) else None
    return _storable(fields) or None if isinstance(fields, str) else None


def _gateway_error(answer: Answer) -> GatewayError:
    return GatewayError(f"http_{answer.status}", retry_after=read_retry_after(answer.headers))


def token_fields(
    body: bytes, tokens: Sequence[str], words: Sequence[str] | None = ()
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The fields of an answer, and flags that name the repairs that were needed to read them.

    A strict provider has already invalidated the old token when it answers. So a complete token is kept, whatever is
    wrong with the rest: bytes that are not UTF-8, text after the object, a field that is nested too deep or too long.

    Args:
        body: the answer.
        tokens: the fields that hold tokens. A damaged answer must have the first of them. An answer that was cut off
            must have all of them, because a missing one may have been cut off.
        words: other fields to read from a damaged answer; None: a damaged answer is not read at all.

    Returns:
        None if the fields cannot be read. A token that cannot be read has a value that `checked_token` refuses.
    """
    fields = _decoded(body)
    if isinstance(fields, dict):
        return fields, ()
    return (None, ()) if words is None else _salvaged(body, tokens, words)


def _decoded(text: bytes) -> Any:
    """The decoded JSON; None if the text cannot be decoded."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(text)  # accepts more (NaN, lone surrogates): a rotated token must not be lost
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
    """A provider's text in a form that Postgres can store."""
    return text.replace("\x00", "").encode(errors="replace").decode()[:_MAX_SCOPE]


def checked_token(value: object, field: str) -> str:
    """`value`, if it is a token that can be sent.

    Raises:
        BadPayload: it is not a string, is too long, or has characters that a header may not contain.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise BadPayload(f"{field}_malformed")
    return value


def read_lifetime(value: object, policy: RefreshPolicy) -> tuple[timedelta, tuple[str, ...]]:
    """`expires_in` as a duration, and flags that name the repairs.

    A value that is missing, zero, negative or not a number is replaced by the integration's default. If that is too
    long, the first refused call leads to a refresh. A value above the integration's maximum is reduced to it.
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
    if not value > 0:  # also True for NaN
        return policy.default_lifetime, (*flags, "expires_in_not_positive")
    longest = policy.max_lifetime.total_seconds()
    if value > longest:
        return policy.max_lifetime, (*flags, "expires_in_clamped")
    return timedelta(seconds=value), flags
