"""Signatures by the Standard Webhooks specification, version 1 (standardwebhooks.com): HMAC-SHA256, in base64."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from worker.telemetry.redaction import remember_shapes

_PREFIX = "whsec_"
_SECRET_BYTES = 32

remember_shapes((r"\bwhsec_[\w+/=-]{20,}",))


def new_secret() -> str:
    """A new secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(body: bytes, *, event_id: str, timestamp: int, by: list[str]) -> dict[str, str]:
    """The headers of one delivery.

    Args:
        body: the body as it is sent.
        event_id: the same at each attempt.
        timestamp: of this attempt, in seconds since the epoch.
        by: the secrets that are valid now; each gives one signature.
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    return {
        "content-type": "application/json",
        "user-agent": "dashtam-worker",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_signature(secret, signed)}" for secret in by),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
