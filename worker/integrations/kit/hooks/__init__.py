"""Hooks: what a provider posts to us when something has changed at its side.

An integration declares how its provider's hooks are verified and what they ask for: it returns a `Hooks` as its
attribute `hooks`. `verifier` checks the signature; the kit has three kinds:

- `es256.SignedToken`: a JWS in a header, signed with a key that is asked for by its id (`signing_keys.SigningKeys`).
- `hmacs.TimestampedHmac`: `t=…,v1=…` in a header, computed from the time and the raw body.
- `hmacs.CanonicalHmac`: an HMAC of the body's canonical JSON.

Everything works on the bytes as they were received. A hook is a hint and never data: it makes work due, and the work
then asks the provider's API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from worker.errors import HookRefused
from worker.integrations.kit.hooks.body import UnreadableBodyError, read_body
from worker.models.hooks import Ask, Hook

__all__ = ["Ask", "Delivery", "Hook", "Hooks", "Proof", "Verifier", "words"]

HEADER_BYTES = 4096
_ID_LENGTH = 200
_WORD = re.compile(r"[A-Za-z0-9._-]{1,60}")


@dataclass(frozen=True, slots=True, repr=False)
class Delivery:
    """One request as it was received.

    Attributes:
        headers: names in lower case, and values; a name that came twice is there twice.
        body: the body's bytes.
        at: when it was received.
    """

    headers: tuple[tuple[str, str], ...]
    body: bytes
    at: datetime

    def values(self, name: str) -> list[str]:
        """All values of one header; `name` is in lower case."""
        return [value for given, value in self.headers if given == name]

    def header(self, name: str) -> str:
        """The value of a header that must be there exactly once and be at most 4 kB long.

        Raises:
            HookRefused: it is not.
        """
        given = self.values(name)
        if not given or not given[0].strip():
            raise HookRefused("header_missing")
        if len(given) > 1:
            raise HookRefused("header_twice")
        if len(given[0]) > HEADER_BYTES:
            raise HookRefused("header_too_long")
        return given[0].strip()

    @property
    def body_sha256(self) -> str:
        """SHA-256 of the body, in hexadecimal digits."""
        return sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a verification that succeeded.

    Attributes:
        delivery_id: what distinguishes this delivery; None if the hook's own id does, which is in the body.
        is_late: it is older than a first delivery may be; only a hook that was not seen before may be used.
    """

    delivery_id: str | None = None
    is_late: bool = False


class Verifier:
    """Checks that a delivery comes from the provider."""

    async def verify(self, delivery: Delivery) -> Proof:
        """Checks one delivery.

        Raises:
            HookRefused: the signature is missing or wrong, or the delivery comes too late.
            ProviderError: the key could not be asked for. This says nothing about the delivery.
        """
        raise NotImplementedError


class Hooks:
    """How an integration receives the hooks of its provider. By default, no hook asks for anything.

    Attributes:
        verifier: checks the signature.
        environment: our environment at the provider; None if the provider's hooks do not name one.
        id_fields: members of the body that may have the hook's own id; the first that is there counts.
    """

    id_fields: tuple[str, ...] = ()

    def __init__(self, verifier: Verifier, *, environment: str | None = None) -> None:
        self.verifier = verifier
        self.environment = environment

    def read(self, body: Mapping[str, Any]) -> Hook:
        """What a verified hook asks for. `delivery_id` is filled in by `receive`.

        Args:
            body: the body; it may have any members of any type.
        """
        return Hook("other", "", is_known=False)

    async def receive(self, delivery: Delivery) -> Hook:
        """Verifies and reads one delivery.

        Raises:
            HookRefused: it is not from the provider, or it comes too late.
            ProviderError: the key could not be asked for.
        """
        if any(value.strip().lower() not in ("", "identity") for value in delivery.values("content-encoding")):
            raise HookRefused("content_encoding")
        proof = await self.verifier.verify(delivery)
        try:
            body = read_body(delivery.body)
        except UnreadableBodyError:
            return Hook("unreadable", proof.delivery_id or delivery.body_sha256, is_known=False, is_late=proof.is_late)
        own_id = next((one for name in self.id_fields if (one := _id(body.get(name)))), None)
        delivery_id = proof.delivery_id or own_id or delivery.body_sha256
        hook = self.read(body)
        return replace(hook, delivery_id=delivery_id, login=_id(hook.login), is_late=proof.is_late)


def _id(value: object) -> str | None:
    """An id from a body; None if it is none that can be stored."""
    return value if isinstance(value, str) and 0 < len(value) <= _ID_LENGTH and value.isprintable() else None


def words(*given: object) -> str:
    """A hook's kind from members of its body; a member that is no short word becomes `other`."""
    return "/".join(value if isinstance(value, str) and _WORD.fullmatch(value) else "other" for value in given)
