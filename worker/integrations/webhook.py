"""Sends signed webhooks: the only HTTP calls that do not go to a provider.

The receiver checks `HMAC-SHA256(secret, "<timestamp>.<body>")` and refuses old timestamps, so that a recorded request
cannot be replayed. By the notice's id, it recognises a repeated delivery.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

import httpx

from worker.errors import ProviderError, Undelivered
from worker.integrations.kit.base import Caller
from worker.integrations.kit.http import Api

TIMESTAMP_HEADER = "x-dashtam-timestamp"
SIGNATURE_HEADER = "x-dashtam-signature"
NOTICE_HEADER = "x-dashtam-notice"
_MAX_ANSWER_BYTES = 64 * 1024
_GONE = 410


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and the HMAC-SHA256, in hexadecimal, of `timestamp`, a full stop and `body`."""
    return "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhook:
    """The receiver to which signed notices are posted.

    Args:
        url: the receiver's address; https, or http on this machine.
        secret: the secret that the receiver knows, too.
        total_seconds: deadline of one call.
        transport: replaces the network in tests.

    Raises:
        ConfigurationError: the URL is http and leads to another machine.
    """

    def __init__(
        self, url: str, *, secret: str, total_seconds: float = 10, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        parts = urlsplit(url)
        self._secret = secret
        self._api = Api(
            f"{parts.scheme}://{parts.netloc}",
            name="webhook",
            total_seconds=total_seconds,
            max_bytes=_MAX_ANSWER_BYTES,
            transport=transport,
        )
        path = parts.path or "/"
        self._endpoint = self._api.endpoint("notice", "POST", f"{path}?{parts.query}" if parts.query else path)

    async def post(self, body: bytes, *, notice_id: str, timestamp: int) -> None:
        """Posts one JSON body, signed with `timestamp` (seconds since the epoch).

        Raises:
            Undelivered: the answer was not 2xx. A redirect is refused; 410 means that no more notices are wanted.
        """
        headers = {
            "content-type": "application/json",
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: signature(self._secret, str(timestamp), body),
            NOTICE_HEADER: notice_id,
        }
        try:
            answer = await self._api.send(self._endpoint, Caller(), headers=headers, content=body)
        except ProviderError as error:
            raise Undelivered(f"webhook: {error.reason}") from None
        if not 200 <= answer.status < 300:
            raise Undelivered(f"webhook: http_{answer.status}", permanent=answer.status == _GONE)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._api.aclose()
