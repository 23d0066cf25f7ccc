"""Signed webhooks over a transport that answers in memory."""

from __future__ import annotations

import asyncio
import hashlib
import hmac

import httpx
import pytest

from worker.errors import ConfigurationError, Undelivered
from worker.integrations.webhook import Webhook, signature


def post(answer: httpx.Response | Exception) -> httpx.Request:
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run() -> None:
        webhook = Webhook("https://hooks.example/a?b=c", secret="s3cret", transport=httpx.MockTransport(handle))
        try:
            await webhook.post(b'{"x":1}', notice_id="notice-1", timestamp=1_700_000_000)
        finally:
            await webhook.aclose()

    asyncio.run(run())
    return sent[0]


def test_signature_covers_timestamp_and_body() -> None:
    expected = hmac.new(b"s3cret", b'1700000000.{"x":1}', hashlib.sha256).hexdigest()

    assert signature("s3cret", "1700000000", b'{"x":1}') == f"v1={expected}"
    assert signature("s3cret", "1700000001", b'{"x":1}') != f"v1={expected}"
    assert signature("other", "1700000000", b'{"x":1}') != f"v1={expected}"


def test_request_carries_signature_timestamp_and_id_but_not_the_secret() -> None:
    request = post(httpx.Response(204))

    assert str(request.url) == "https://hooks.example/a?b=c"
    assert request.headers["x-dashtam-timestamp"] == "1700000000"
    assert request.headers["x-dashtam-signature"] == signature("s3cret", "1700000000", b'{"x":1}')
    assert request.headers["x-dashtam-notice"] == "notice-1"
    assert "s3cret" not in str(request.headers.raw)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("answer", "reason", "permanent"),
    [
        (httpx.Response(500), "webhook: http_500", False),
        (httpx.Response(404), "webhook: http_404", False),
        (httpx.Response(410), "webhook: http_410", True),
        (httpx.Response(302, headers={"location": "https://elsewhere.example"}), "webhook: redirect_refused", False),
        (httpx.ConnectError("down"), "webhook: connect_failed", False),
        (httpx.ReadTimeout("slow"), "webhook: timeout", False),
    ],
)
def test_anything_but_2xx_is_undelivered(answer: httpx.Response | Exception, reason: str, permanent: bool) -> None:
    with pytest.raises(Undelivered) as undelivered:
        post(answer)

    assert (str(undelivered.value), undelivered.value.permanent) == (reason, permanent)


@pytest.mark.parametrize("url", ["http://hooks.example/a", "ftp://hooks.example", "https://user:pw@hooks.example"])
def test_receiver_without_tls_or_with_credentials_in_its_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Webhook(url, secret="s")

    assert "pw" not in str(refused.value)
