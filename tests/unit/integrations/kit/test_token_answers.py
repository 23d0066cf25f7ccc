"""What an OAuth 2 integration makes of token answers, bad ones above all."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.integrations.scripts import ACCESS_TOKEN, NOW, REFRESH_TOKEN, form_of, provider, schwab_tokens
from worker import errors
from worker.errors import ProviderError, Refused, Scope
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.oauth2 import parse_callback


def refresh(answer: httpx.Response) -> TokenAnswer:
    subject = provider("schwab", lambda request: answer)
    return asyncio.run(subject.integration.refresh(Caller(), REFRESH_TOKEN))


def refresh_error(answer: httpx.Response) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        refresh(answer)
    return caught.value


def error_answer(status: int, error: object, description: object = None) -> httpx.Response:
    return httpx.Response(status, json={"error": error, "error_description": description})


def test_refresh_presents_the_token_once_with_the_application_in_the_header() -> None:
    subject = provider("schwab")

    asyncio.run(subject.integration.refresh(Caller(), REFRESH_TOKEN))

    (sent,) = subject.requests
    assert form_of(sent) == {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}
    assert sent.headers["authorization"].startswith("Basic ")
    assert sent.headers["content-type"] == "application/x-www-form-urlencoded"


def test_exchange_sends_the_code_and_begins_the_seven_days() -> None:
    subject = provider("schwab")

    answer = asyncio.run(subject.integration.exchange(Caller(), {"code": "C0.abc@"}, now=NOW))

    sent = subject.requests[0]
    assert form_of(sent)["code"] == "C0.abc@"
    assert b"code=C0.abc%40&" in sent.content
    assert answer.grant_expires_at == NOW + timedelta(days=7)
    assert answer.refresh_token == "new-" + REFRESH_TOKEN


def test_rotated_token_is_taken_as_sent() -> None:
    answer = refresh(schwab_tokens())

    assert (answer.access_token, answer.refresh_token) == ("new-" + ACCESS_TOKEN, "new-" + REFRESH_TOKEN)
    assert (answer.lifetime, answer.scope, answer.flags) == (timedelta(minutes=30), "api", ())


@pytest.mark.deep
@pytest.mark.parametrize("value", [..., None, ""])
def test_answer_without_refresh_token_leaves_the_old_one(value: object) -> None:
    assert refresh(schwab_tokens(refresh_token=value)).refresh_token is None


@pytest.mark.deep
@pytest.mark.parametrize(
    ("value", "lifetime", "flags"),
    [
        (1800, timedelta(seconds=1800), ()),
        (1799.5, timedelta(seconds=1799.5), ()),
        ("3600", timedelta(seconds=3600), ("expires_in_coerced",)),
        (-1, timedelta(minutes=30), ("expires_in_not_positive",)),
        (0, timedelta(minutes=30), ("expires_in_not_positive",)),
        ("-5", timedelta(minutes=30), ("expires_in_coerced", "expires_in_not_positive")),
        (1e18, timedelta(days=1), ("expires_in_clamped",)),
        (10**18, timedelta(days=1), ("expires_in_clamped",)),
        ("1e400", timedelta(days=1), ("expires_in_coerced", "expires_in_clamped")),
        (10**400, timedelta(days=1), ("expires_in_clamped",)),
        (-(10**400), timedelta(minutes=30), ("expires_in_not_positive",)),
        ("9" * 400, timedelta(days=1), ("expires_in_coerced", "expires_in_clamped")),
        ("soon", timedelta(minutes=30), ("expires_in_unreadable",)),
        (True, timedelta(minutes=30), ("expires_in_unreadable",)),
        ([1800], timedelta(minutes=30), ("expires_in_unreadable",)),
        (..., timedelta(minutes=30), ("expires_in_missing",)),
        (None, timedelta(minutes=30), ("expires_in_missing",)),
    ],
    ids=lambda value: str(value)[:24],
)
def test_absurd_lifetime_is_coerced_or_clamped_and_flagged(
    value: object, lifetime: timedelta, flags: tuple[str, ...]
) -> None:
    answer = refresh(schwab_tokens(expires_in=value))

    assert (answer.lifetime, answer.flags) == (lifetime, flags)


def test_lifetime_that_is_not_even_json_costs_no_token() -> None:
    body = b'{"access_token":"abc","token_type":"Bearer","expires_in":NaN,"scope":"\\ud800"}'

    answer = refresh(httpx.Response(200, content=body))

    assert answer.access_token == "abc"
    assert answer.flags == ("expires_in_not_positive",)


GOOD = b'{"access_token":"abc","refresh_token":"def","token_type":"Bearer","expires_in":60,"scope":"api"}'
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.deep
@pytest.mark.parametrize(
    ("body", "flags"),
    [
        (GOOD.replace(b'"api"', b'"a\xffpi"'), ("text_replaced",)),
        (GOOD + b"<!-- served by cache 7 -->", ("text_after_answer",)),
        (GOOD + GOOD, ("text_after_answer",)),
        (b"\xef\xbb\xbf" + GOOD + b"\xff", ("text_after_answer", "text_replaced")),
        (GOOD[:-1] + b',"extra":' + DEEP + b"}", ("answer_mended",)),
        (b'{"extra":' + DEEP + b"," + GOOD[1:], ("answer_mended",)),
        (GOOD[:-1] + b',"id_token":"abc', ("answer_cut",)),
        (GOOD[:-1] + b',"extra":' + DEEP[:-1], ("answer_cut",)),
        (GOOD[:-1] + b',"iat":' + b"9" * 5000 + b"}", ("answer_mended",)),
    ],
)
def test_token_that_is_there_in_full_is_kept_whatever_is_wrong_around_it(body: bytes, flags: tuple[str, ...]) -> None:
    answer = refresh(httpx.Response(200, content=body))

    assert (answer.access_token, answer.refresh_token) == ("abc", "def")
    assert answer.lifetime == timedelta(seconds=60)
    assert answer.flags == flags


def test_lifetime_of_five_thousand_digits_costs_no_token() -> None:
    answer = refresh(httpx.Response(200, content=GOOD.replace(b":60", b":" + b"9" * 5000)))

    assert (answer.access_token, answer.lifetime) == ("abc", timedelta(days=1))


@pytest.mark.deep
@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token":"abc","token_type":"Bearer","expires_in":60,"refresh_',  # it may have had a new one
        GOOD[:30] + b"\xff",
        b'{"error":"invalid_grant","access_token":"abc","refresh_token":"def"} x',
        b'{"token_type":"Bearer"} {"access_token":"abc"}',
        b'{"extra":' + DEEP + b"}",
    ],
)
def test_token_that_may_not_be_the_whole_answer_is_an_unknown_outcome(body: bytes) -> None:
    assert type(refresh_error(httpx.Response(200, content=body))) is errors.OutcomeUnknown


@pytest.mark.deep
@pytest.mark.parametrize("value", [b'"d\xffef"', b"[1]", DEEP, b"12", b'"d\\u0000ef"'])
def test_refresh_token_that_cannot_be_read_is_never_taken_for_none(value: bytes) -> None:
    error = refresh_error(httpx.Response(200, content=GOOD.replace(b'"def"', value) + b" and more"))

    assert (type(error), error.reason) == (errors.BadPayload, "refresh_token_malformed")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_error_that_is_no_json_as_a_whole_ends_no_grant(status: int) -> None:
    error = refresh_error(httpx.Response(status, content=b'{"error":"invalid_grant"} <html>'))

    assert type(error) is errors.Transient


def test_scope_that_no_column_could_hold_is_kept_as_far_as_it_can_be() -> None:
    answer = refresh(schwab_tokens(scope="a\x00pi" + "i" * 100_000))

    assert answer.scope is not None
    assert answer.scope.startswith("apii")
    assert len(answer.scope) <= 4000
    assert refresh(httpx.Response(200, content=GOOD.replace(b"api", b"a\\ud800"))).scope == "a?"


@given(st.binary(max_size=40), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_no_answer_whatever_its_bytes_raises_what_is_no_outcome(noise: bytes, start: int, end: int) -> None:
    body = GOOD[:start] + noise + GOOD[end:]

    try:
        answer = refresh(httpx.Response(200, content=body))
    except ProviderError:
        return
    assert answer.access_token.isascii()


@pytest.mark.deep
@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        b'{"access_token":"abc","token_t',
        b"[]",
        b"null",
        b'"abc"',
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"token_type":"Bearer","expires_in":1800}',
        b'{"access_token":"","token_type":"Bearer"}',
        b'{"access_token":null,"token_type":"Bearer"}',
    ],
)
def test_success_that_cannot_be_read_is_an_unknown_outcome(body: bytes) -> None:
    assert type(refresh_error(httpx.Response(200, content=body))) is errors.OutcomeUnknown


def test_answer_too_long_to_read_is_an_unknown_outcome() -> None:
    assert type(refresh_error(httpx.Response(200, content=b" " * (2 << 20)))) is errors.OutcomeUnknown


@pytest.mark.deep
@pytest.mark.parametrize("field", ["access_token", "refresh_token"])
@pytest.mark.parametrize("value", ["a" * 100_000, "a\r\nX-Evil: 1", "a\nb", "a\x00b", "a b", "ä", 12345, {"a": 1}])
def test_token_that_no_header_may_hold_is_refused(field: str, value: object) -> None:
    error = refresh_error(schwab_tokens(**{field: value}))

    assert type(error) is errors.BadPayload
    assert error.reason == f"{field}_malformed"


def test_token_type_other_than_bearer_is_an_error_that_asks_nothing_of_the_user() -> None:
    error = refresh_error(schwab_tokens(token_type="mac"))

    assert (type(error), error.reason) == (errors.BadPayload, "token_type")


@pytest.mark.deep
@pytest.mark.parametrize("value", ["bearer", "BEARER", ..., None])
def test_bearer_is_bearer_in_any_spelling_or_none(value: object) -> None:
    assert refresh(schwab_tokens(token_type=value)).access_token


@pytest.mark.deep
@pytest.mark.parametrize(
    "answer",
    [
        error_answer(
            400,
            "unsupported_token_type",
            '400 Bad Request: "{"error_description":"Exception while authenticating refresh token",'
            '"error":"refresh_token_authentication_error"}"',
        ),
        error_answer(401, "invalid_client", "refresh token invalid"),
        error_answer(400, "invalid_client", "Refresh Token expired"),
        error_answer(400, "invalid_grant"),
        error_answer(200, "invalid_grant"),
    ],
)
def test_dead_grant_is_recognised_in_each_of_its_shapes(answer: httpx.Response) -> None:
    error = refresh_error(answer)

    assert type(error) is errors.ReauthRequired
    assert error.scope is Scope.PROVIDER


@pytest.mark.deep
@pytest.mark.parametrize("description", ["Unauthorized", None, 7, ["refresh token"]])
def test_invalid_client_that_does_not_speak_of_a_refresh_token_is_the_operators(description: object) -> None:
    error = refresh_error(error_answer(401, "invalid_client", description))

    assert type(error) is errors.AppMisconfigured
    assert error.scope is Scope.APP


@pytest.mark.deep
@pytest.mark.parametrize(
    "echoed",
    [
        "rT0k3nAbC9dEf",
        "access-sandbox-0f1e2d3c-aaaa",
        "123456789012",
        "9F3C1B7A0E5D",
        "a b",
        "a" * 65,
        "",
    ],
)
def test_code_that_may_be_a_token_or_a_number_is_not_kept_as_the_reason(echoed: str) -> None:
    assert refresh_error(error_answer(400, echoed)).reason == "http_400"


@pytest.mark.deep
@pytest.mark.parametrize("code", ["protocol.http.TooBigBody", "ITEM_LOGIN_REQUIRED", "AADSTS700", "error-42", "1403"])
def test_code_that_is_made_of_words_is_kept_as_the_reason(code: str) -> None:
    assert refresh_error(error_answer(400, code)).reason == code


@pytest.mark.parametrize("code", ["invalid_scope", "unsupported_grant_type"])
def test_refusal_that_does_not_speak_of_the_client_accuses_neither_login_nor_application(code: str) -> None:
    error = refresh_error(error_answer(400, code))

    assert type(error) is errors.Forbidden
    assert error.scope is Scope.PROVIDER


@pytest.mark.deep
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(500, text="<html>oops</html>"), errors.Transient),
        (httpx.Response(501, text=""), errors.Transient),
        (httpx.Response(503, json={"message": "temporary problem"}), errors.Transient),
        (httpx.Response(400, text="<html>Bad Request</html>"), errors.Transient),
        (httpx.Response(401, text="<html>Unauthorized</html>"), errors.Transient),
        (httpx.Response(429, text="slow down"), errors.RateLimited),
        (error_answer(429, None), errors.RateLimited),
        (error_answer(400, "temporarily_unavailable"), errors.Transient),
        (error_answer(400, "invalid_request"), errors.BadRequest),
        (error_answer(400, {"nested": 1}), errors.BadRequest),
        (error_answer(401, "something_new"), errors.BadRequest),
    ],
)
def test_trouble_that_is_not_the_grants_never_asks_for_a_new_login(
    answer: httpx.Response, kind: type[ProviderError]
) -> None:
    assert type(refresh_error(answer)) is kind


@pytest.mark.deep
@pytest.mark.parametrize("status", [502, 504, 520, 524])
@pytest.mark.parametrize("body", ["", "<html>Bad Gateway</html>", '{"message": "x"}', '{"error": "server_error"}'])
def test_answer_of_a_gateway_says_nothing_about_what_the_provider_did(status: int, body: str) -> None:
    error = refresh_error(httpx.Response(status, text=body, headers={"retry-after": "60"}))

    assert (type(error), error.reason, error.retry_after) == (
        errors.GatewayError,
        f"http_{status}",
        timedelta(seconds=60),
    )


def test_provider_s_own_word_counts_whatever_the_status() -> None:
    assert type(refresh_error(error_answer(502, "invalid_grant"))) is errors.ReauthRequired


def test_over_the_limit_says_when_to_ask_again() -> None:
    error = refresh_error(httpx.Response(429, headers={"retry-after": "30"}, json={"error": "slow_down"}))

    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == timedelta(seconds=30)


def test_providers_code_is_kept_only_when_it_is_a_plain_word() -> None:
    assert refresh_error(error_answer(400, "some_code")).reason == "some_code"
    assert refresh_error(error_answer(400, "bad\nSECRET token=abc")).reason == "http_400"
    assert refresh_error(error_answer(400, "x" * 100)).reason == "http_400"


def test_redirect_to_another_host_is_refused_and_nothing_is_sent_there() -> None:
    subject = provider("schwab", lambda request: httpx.Response(302, headers={"location": "https://evil.test/"}))

    with pytest.raises(errors.BadPayload, match="redirect_refused"):
        asyncio.run(subject.integration.refresh(Caller(), REFRESH_TOKEN))

    assert subject.hosts() == {"provider.test"}


REDIRECT_URI = "https://127.0.0.1/callback"


def test_callback_code_is_decoded_exactly_once() -> None:
    found = parse_callback(f"{REDIRECT_URI}?code=C0.a%2Bb%2525c%40&session=s-1&state=st%20ate\n", REDIRECT_URI)

    assert found == ("C0.a+b%25c@", "st ate")


def test_plus_sign_in_a_code_stays_a_plus_sign() -> None:
    assert parse_callback(f"{REDIRECT_URI}?code=a+b%40&state=s", REDIRECT_URI).code == "a+b@"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/callback?code=a&state=s",
        "http://127.0.0.1/callback?code=a&state=s",
        "https://127.0.0.1/other?code=a&state=s",
        f"{REDIRECT_URI}?state=s",
        f"{REDIRECT_URI}?code=a",
        f"{REDIRECT_URI}?error=access_denied&state=s",
        "a@",
        "",
    ],
)
def test_callback_that_is_not_one_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_callback(url, REDIRECT_URI)

    assert "code=a" not in str(caught.value)


# Plaid's exchange answers are of another shape, and as precious.


def exchange_plaid(answer: httpx.Response, item: httpx.Response | None = None) -> TokenAnswer:
    def handler(request: httpx.Request) -> httpx.Response:
        return (
            answer
            if request.url.path == "/item/public_token/exchange"
            else item or httpx.Response(200, json={"item": {}})
        )

    return asyncio.run(provider("plaid", handler).integration.exchange(Caller(), {"public_token": "public-1"}, now=NOW))


def test_plaid_exchange_keeps_the_token_when_the_consent_cannot_be_asked_for() -> None:
    answer = exchange_plaid(httpx.Response(200, json={"access_token": "abc", "item_id": "i"}), httpx.Response(500))

    assert (answer.access_token, answer.external_id, answer.grant_expires_at) == ("abc", "i", None)
    assert answer.flags == ("consent_expiry_unknown",)


def test_plaid_token_without_consent_limit_has_no_end() -> None:
    answer = exchange_plaid(httpx.Response(200, json={"access_token": "abc", "item_id": "i"}))

    assert (answer.grant_expires_at, answer.lifetime, answer.flags) == (None, None, ())


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"item_id":"i"}', b'{"access_token":""}', b'{"access_tok'])
def test_plaid_exchange_that_cannot_be_read_is_an_unknown_outcome(body: bytes) -> None:
    with pytest.raises(errors.OutcomeUnknown):
        exchange_plaid(httpx.Response(200, content=body))


@pytest.mark.deep
@pytest.mark.parametrize("token", ["a\r\nb", "a" * 100_000, 7])
def test_plaid_token_that_cannot_be_used_is_refused(token: object) -> None:
    with pytest.raises(errors.BadPayload):
        exchange_plaid(httpx.Response(200, content=json.dumps({"access_token": token}).encode()))


def test_secrets_stay_out_of_what_is_logged_of_an_answer() -> None:
    tokens: list[Any] = [refresh(schwab_tokens()), exchange_plaid(httpx.Response(200, json={"access_token": "abc"}))]

    assert ACCESS_TOKEN not in repr(tokens)
    assert REFRESH_TOKEN not in repr(tokens)
