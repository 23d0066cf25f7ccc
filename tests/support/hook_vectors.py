"""Hooks as a stranger might forge them: what each vector sends, and the reason for which it must be refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Headers = list[tuple[str, str]]
NAME = "Plaid-Verification"
BODY = b'{\n  "webhook_type": "TRANSACTIONS",\n  "webhook_code": "SYNC_UPDATES_AVAILABLE"\n}'


@dataclass
class Signer:
    """A key pair with its id. `jwk` is what the provider would answer for it."""

    kid: str = "6c5516e1-92dc-479e-a8ff-5a51992e0001"
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def jwk(self, **changes: Any) -> dict[str, Any]:
        numbers = self.private.public_key().public_numbers()
        x, y = (text(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        known = {"alg": "ES256", "crv": "P-256", "kid": self.kid, "kty": "EC", "use": "sig", "x": x, "y": y}
        return known | {"created_at": 1, "expired_at": None} | changes

    def der(self, message: bytes) -> bytes:
        return self.private.sign(message, ec.ECDSA(SHA256()))

    def raw(self, message: bytes) -> bytes:
        return b"".join(number.to_bytes(32, "big") for number in utils.decode_dss_signature(self.der(message)))

    def token(
        self,
        body: bytes,
        *,
        now: float,
        header: dict[str, Any] | bytes | None = None,
        claims: dict[str, Any] | bytes | None = None,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> str:
        """A token over `body`; `header` and `claims` change members, or are the whole text."""
        parts = []
        for usual, given in (
            ({"alg": "ES256", "kid": self.kid, "typ": "JWT"}, header),
            ({"iat": int(now), "request_body_sha256": hashlib.sha256(body).hexdigest()}, claims),
        ):
            parts.append(text(given if isinstance(given, bytes) else json.dumps(usual | (given or {})).encode()))
        signed = ".".join(parts)
        return f"{signed}.{text((sign or self.raw)(signed.encode()))}"

    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Vector:
    """What is sent, and the reason of the refusal."""

    headers: Headers
    body: bytes
    reason: str


def forged(good: Signer, *, body: bytes, now: float) -> dict[str, Vector]:
    """Every vector against the key `good`, by name."""
    own = good.token(body, now=now)

    def bad(reason: str, *, body: bytes = body, key: Signer = good, **how: Any) -> Vector:
        return Vector([(NAME, key.token(body, now=now, **how))], body, reason)

    def hs256(message: bytes) -> bytes:
        return hmac.new(good.public_pem(), message, hashlib.sha256).digest()

    stranger = Signer(kid=good.kid)
    its_key = {"jwk": stranger.jwk()}
    return {
        "no header": Vector([], body, "header_missing"),
        "empty header": Vector([(NAME, "")], body, "header_missing"),
        "two headers": Vector([(NAME, own), (NAME, own)], body, "header_twice"),
        "header over 4 kB": Vector([(NAME, own + "A" * 4096)], body, "header_too_long"),
        "no token": Vector([(NAME, "hello")], body, "token_unreadable"),
        "two parts": Vector([(NAME, own.rpartition(".")[0])], body, "token_unreadable"),
        "no signature": Vector([(NAME, own.rpartition(".")[0] + ".")], body, "token_unreadable"),
        "other characters": Vector([(NAME, own[:-2] + "=!")], body, "token_unreadable"),
        "header that is no JSON": bad("token_unreadable", header=b"{"),
        "header that is a list": bad("token_unreadable", header=b"[]"),
        "header with a key twice": bad("token_unreadable", header=b'{"alg":"ES256","alg":"ES256"}'),
        "alg none": bad("algorithm_refused", header={"alg": "none"}),
        "alg HS256, the public key as its secret": bad("algorithm_refused", header={"alg": "HS256"}, sign=hs256),
        "alg ES256 signed as HS256": bad("signature_wrong", sign=hs256),
        "alg ES384": bad("algorithm_refused", header={"alg": "ES384"}),
        "alg in other letters": bad("algorithm_refused", header={"alg": "es256"}),
        "alg that is a list": bad("algorithm_refused", header={"alg": ["ES256"]}),
        "crit": bad("algorithm_refused", header={"crit": ["exp"], "exp": 1}),
        "no kid": bad("key_id_unreadable", header={"kid": None}),
        "kid with other characters": bad("key_id_unreadable", header={"kid": "../key"}),
        "kid that is long": bad("key_id_unreadable", header={"kid": "a" * 129}),
        "unknown kid": bad("key_unknown", key=Signer(kid="11111111-0000-4000-8000-000000000000")),
        "kid of another environment": bad("key_unknown", key=Signer(kid="22222222-0000-4000-8000-000000000000")),
        "another key under a known kid": bad("signature_wrong", key=stranger),
        "another key, which the header carries": bad("signature_wrong", key=stranger, header=its_key),
        "signature in DER": bad("signature_wrong", sign=good.der),
        "signature of zeros": bad("signature_wrong", sign=lambda _: bytes(64)),
        "changed claims": Vector([(NAME, _with_claims(own, now))], body, "signature_wrong"),
        "swapped body": Vector([(NAME, own)], body.replace(b"{", b'{"a":1,', 1), "body_changed"),
        "body that was indented anew": Vector([(NAME, own)], json.dumps(json.loads(body)).encode(), "body_changed"),
        "no hash of the body": bad("body_hash_missing", claims={"request_body_sha256": None}),
        "301 seconds old": bad("too_old", claims={"iat": int(now) - 302}),
        "61 seconds ahead": bad("too_new", claims={"iat": int(now) + 63}),
        "no time": bad("time_unreadable", claims={"iat": None}),
        "time that is a text": bad("time_unreadable", claims={"iat": str(int(now))}),
        "time with a fraction": bad("time_unreadable", claims={"iat": now + 0.5}),
        "time that is true": bad("time_unreadable", claims={"iat": True}),
        "claims that are no JSON": bad("token_unreadable", claims=b"\xff"),
        "Content-Encoding": Vector([(NAME, own), ("Content-Encoding", "gzip")], body, "content_encoding"),
    }


def _with_claims(token: str, now: float) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{text(json.dumps({'iat': int(now), 'request_body_sha256': '0' * 64}).encode())}.{signature}"
