"""Hooks that are signed with a shared secret: of the time and the raw body, and of canonical JSON."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.errors import ConfigurationError, HookRefused
from worker.integrations.kit.hooks import Delivery, Hooks, Proof
from worker.integrations.kit.hooks.hmacs import CanonicalHmac, TimestampedHmac

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
T = int(NOW.timestamp())
OLD, NEW = "signing-secret-1", "signing-secret-2"
BODY = b'{"id":"wh_1","type":"enrollment.disconnected","payload":{"enrollment_id":"enr_1"}}'
TIMESTAMPED = TimestampedHmac("teller-signature", [NEW, OLD], tolerance=timedelta(seconds=180))
CANONICAL = CanonicalHmac("signature", [NEW, OLD], time_field="eventTimestamp")


def _v1(secret: str = NEW, t: object = T, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest()


def _check(verifier: Any, name: str, values: list[str], body: bytes = BODY, at: datetime = NOW) -> Proof:
    found: Proof = asyncio.run(verifier.verify(Delivery(tuple((name, value) for value in values), body, at)))
    return found


def _stamped(*values: str, body: bytes = BODY) -> Proof:
    return _check(TIMESTAMPED, "teller-signature", list(values), body)


@pytest.mark.parametrize(
    "value",
    [
        f"t={T},v1={_v1()}",
        f"t={T}, v1={_v1()}",
        f"v1={_v1()},t={T}",
        f"t={T},v1={_v1(OLD)}",
        f"t={T},v1={'0' * 64},v1={_v1()}",
        f"t={T},v1=short,v1={_v1()}",
        f"t={T},v0=abc,v1={_v1()},v2=x",
        f"t={T},v1={_v1().upper()}",
        f"t={T - 180},v1={_v1(t=T - 180)}",
        f"t={T + 180},v1={_v1(t=T + 180)}",
    ],
)
def test_genuine_hook_is_accepted(value: str) -> None:
    assert _stamped(value) == Proof()


@pytest.mark.parametrize(
    ("values", "body", "reason"),
    [
        ([], BODY, "header_missing"),
        ([f"t={T},v1={_v1()}"] * 2, BODY, "header_twice"),
        ([f"t={T},v1={_v1()}" + " " + "x" * 4096], BODY, "header_too_long"),
        ([f"v1={_v1()}"], BODY, "header_unreadable"),
        ([f"t={T},t={T},v1={_v1()}"], BODY, "header_unreadable"),
        ([f"t=-{T},v1={_v1()}"], BODY, "header_unreadable"),
        ([f"t={T}.0,v1={_v1(t=f'{T}.0')}"], BODY, "header_unreadable"),
        (["t=١٢٣,v1=00"], BODY, "header_unreadable"),
        ([f"t={T}"], BODY, "signature_missing"),
        ([f"t={T},v0={_v1()}"], BODY, "signature_missing"),
        ([f"t={T}," + ",".join([f"v1={_v1()}"] * 11)], BODY, "header_unreadable"),
        ([f"t={T},v1={'0' * 64}"], BODY, "signature_wrong"),
        ([f"t={T},v1="], BODY, "signature_wrong"),
        ([f"t={T},v1={_v1('another-secret')}"], BODY, "signature_wrong"),
        ([f"t={T},v1={_v1()}"], BODY + b" ", "signature_wrong"),
        ([f"t={T + 1},v1={_v1()}"], BODY, "signature_wrong"),
        ([f"t={T - 181},v1={_v1(t=T - 181)}"], BODY, "too_old"),
        ([f"t={T + 181},v1={_v1(t=T + 181)}"], BODY, "too_new"),
    ],
)
def test_forged_hook_is_refused(values: list[str], body: bytes, reason: str) -> None:
    with pytest.raises(HookRefused) as refused:
        _stamped(*values, body=body)

    assert refused.value.reason == reason


def test_all_signatures_are_compared_so_that_the_time_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    _stamped(f"t={T},v1={_v1()},v1={'0' * 64},v1={_v1(OLD)}")

    assert len(compared) == 6


@pytest.mark.parametrize("secrets", [[], [""], ["one", ""]])
def test_secret_that_is_empty_is_refused_at_startup(secrets: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        TimestampedHmac("x", secrets, tolerance=timedelta(seconds=1))


def test_id_of_the_hook_is_the_delivery_s() -> None:
    class Own(Hooks):
        id_fields = ("id",)

    hook = asyncio.run(Own(TIMESTAMPED).receive(Delivery((("teller-signature", f"t={T},v1={_v1()}"),), BODY, NOW)))

    assert hook.delivery_id == "wh_1"


# Canonical JSON ------------------------------------------------------------------------------------------------------


def _event(**changes: Any) -> dict[str, Any]:
    return {
        "webhookId": "0d3e1c3e-0000-4000-8000-000000000001",
        "eventTimestamp": "2026-11-01T12:00:00.123456Z",
        "userId": "user-ü",
        "eventType": "ACCOUNT_HOLDINGS_UPDATED",
        "details": {"positions": {"success": True, "error": None}, "list": [1, "a", []]},
    } | changes


def _signature(event: Any, secret: str = NEW) -> str:
    signed = json.dumps(event, separators=(",", ":"), sort_keys=True)  # as in the provider's own sample
    return base64.b64encode(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()).decode()


def _canonical(event: Any, *values: str, body: bytes | None = None, at: datetime = NOW) -> Proof:
    sent = json.dumps(event, indent=2).encode() if body is None else body
    return _check(CANONICAL, "signature", list(values) or [_signature(event)], sent, at)


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_canonical_signature_is_accepted_however_the_body_is_written(secret: str) -> None:
    event = _event()
    for body in (json.dumps(event), json.dumps(event, ensure_ascii=False, indent=4), json.dumps(event, sort_keys=True)):
        assert _canonical(event, _signature(event, secret), body=body.encode()) == Proof()


@pytest.mark.parametrize("number", ["1.10", "1e3", "100.0", "0.1", "12345678901234567890.25", "-0.0", "7"])
def test_numbers_are_accepted_as_python_writes_them_and_as_they_are_written(number: str) -> None:
    body = json.dumps(_event()).replace('"details": ', f'"total": {number}, "details": ').encode()
    as_python = _signature(json.loads(body))
    parsed = json.loads(body, parse_float=lambda text: f"@{text}@", parse_int=lambda text: f"@{text}@")
    text = json.dumps(parsed, separators=(",", ":"), sort_keys=True).replace('"@', "").replace('@"', "")
    as_written = base64.b64encode(hmac.new(NEW.encode(), text.encode(), hashlib.sha256).digest()).decode()

    assert _canonical(None, as_python, body=body) == Proof()
    assert _canonical(None, as_written, body=body) == Proof()


@pytest.mark.parametrize(
    ("values", "body", "reason"),
    [
        ([_signature(_event(userId="another"))], None, "signature_wrong"),
        ([_signature(_event(), "another-secret")], None, "signature_wrong"),
        (["AAAA"], None, "signature_wrong"),
        (["not base64!"], None, "header_unreadable"),
        (["ü"], None, "header_unreadable"),
        ([_signature(_event())] * 2, None, "header_twice"),
        (["x" * 4097], None, "header_too_long"),
        ([_signature([])], b"[]", "body_unreadable"),
        (["AAAA"], b"\xff", "body_unreadable"),
        (["AAAA"], b'{"a":1,"a":1}', "body_unreadable"),
        (["AAAA"], b"{" + b'"a":[' * 10_000, "body_unreadable"),
        (["AAAA"], b'{"a":' + b"9" * 5000 + b"}", "body_unreadable"),
    ],
)
def test_forged_canonical_hook_is_refused(values: list[str], body: bytes | None, reason: str) -> None:
    with pytest.raises(HookRefused) as refused:
        _canonical(_event(), *values, body=body)

    assert refused.value.reason == reason


def test_secret_in_the_body_is_no_proof() -> None:
    with pytest.raises(HookRefused, match="signature_wrong"):
        _canonical(_event(webhookSecret=NEW), _signature(_event()))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, Proof()), (300, Proof()), (301, Proof(is_late=True)), (86_400, Proof(is_late=True))]
)
def test_repeated_delivery_keeps_its_time_and_counts_as_late(seconds: int, told: Proof) -> None:
    event = _event(eventTimestamp=(NOW - timedelta(seconds=seconds)).isoformat())

    assert _canonical(event) == told


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        ("2026-11-01T12:01:01Z", "too_new"),
        ("soon", "time_unreadable"),
        (7, "time_unreadable"),
        (None, "time_unreadable"),
    ],
)
def test_time_that_cannot_be_right_is_refused(moment: Any, reason: str) -> None:
    with pytest.raises(HookRefused) as refused:
        _canonical(_event(eventTimestamp=moment))

    assert refused.value.reason == reason
