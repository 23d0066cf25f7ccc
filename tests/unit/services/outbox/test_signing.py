"""Signatures and retries of our own hooks, by the Standard Webhooks specification."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from worker.services.outbox import signing
from worker.services.outbox.sending import GIVEN_UP_AFTER, RETRIES, retry_at
from worker.telemetry.redaction import redact

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)
BODY = b'{"event_type":"ping","data":{"success":true}}'


def test_signature_of_the_specification_s_example_is_the_same() -> None:
    headers = signing.headers(
        BODY, event_id="msg_loFOjxBNrRLzqYUf", timestamp=1731705121, by=["whsec_plJ3nmyCDGBKInavdOK15jsl"]
    )

    assert headers["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_new_secret_has_256_bits_and_signs_what_only_its_holder_can_verify() -> None:
    secret, other = signing.new_secret(), signing.new_secret()
    headers = signing.headers(BODY, event_id="1", timestamp=int(datetime.now(UTC).timestamp()), by=[secret])

    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    Webhook(secret).verify(BODY, headers)
    for forged in (
        (BODY + b" ", headers, secret),
        (BODY, headers | {"webhook-id": "2"}, secret),
        (BODY, headers, other),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(forged[2]).verify(forged[0], forged[1])


def test_secret_is_taken_out_of_logs() -> None:
    secret = signing.new_secret()

    assert secret not in redact(f"the secret is {secret}, keep it")


def test_ten_attempts_take_a_little_over_three_days() -> None:
    at, attempts = NOW, 0
    while (again := retry_at(attempts + 1, at, None)) is not None:
        at, attempts = again, attempts + 1

    assert attempts + 1 == 10
    assert timedelta(days=3) < GIVEN_UP_AFTER <= at - NOW < timedelta(days=4)


@pytest.mark.parametrize("pause", [None, timedelta(0), timedelta(seconds=1), timedelta(hours=3), timedelta(days=400)])
def test_pause_puts_a_retry_off_by_a_day_at_most_and_never_forward(pause: timedelta | None) -> None:
    for attempts in range(1, len(RETRIES) + 1):
        again = retry_at(attempts, NOW, pause)

        assert again is not None
        assert again - NOW >= max(RETRIES[attempts - 1], min(pause or timedelta(), timedelta(days=1)))
        assert again - NOW <= max(RETRIES[attempts - 1] * 1.1, timedelta(days=1))
