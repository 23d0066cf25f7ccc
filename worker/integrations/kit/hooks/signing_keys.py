"""Public keys of a provider, asked for by their ids and kept in memory, each for itself.

A stranger can name any key id. So ids that the provider does not know are remembered for a minute, and only a few
unknown ids a minute are asked for: otherwise a stranger could use up our quota at the provider.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from worker.errors import HookRefused, ProviderError, Transient

_KEPT_SECONDS = 24 * 3600.0
_UNKNOWN_SECONDS = 60.0
_UNKNOWN_A_MINUTE = 10
_ASKED_AGAIN_SECONDS = 60.0
_MOST = 100
_FETCH_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key of the provider.

    Attributes:
        key: the key in the form that PyJWT takes.
        expired_at: from when on the provider signs nothing with it; None while it is in use.
    """

    key: Any
    expired_at: datetime | None


Fetch = Callable[[str], Awaitable[SigningKey | None]]
"""Asks the provider for the key with this id; returns None if the provider has none. Raises ProviderError."""


@dataclass(slots=True)
class _Kept:
    found: SigningKey
    asked_at: float
    ask_again: bool = False


class SigningKeys:
    """The keys of one provider and environment.

    Args:
        fetch: asks the provider.
        clock: returns seconds that only increase.
    """

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._misses: deque[float] = deque()
        self._asking: dict[str, asyncio.Task[SigningKey]] = {}

    async def get(self, kid: str) -> SigningKey:
        """The key with this id.

        Raises:
            HookRefused: the provider has no such key, or too many unknown ids were asked for.
            ProviderError: the provider could not be asked.
        """
        kept = self._kept.get(kid)
        now = self._clock()
        if kept is not None and now - kept.asked_at < _KEPT_SECONDS:
            if not kept.ask_again or now - kept.asked_at < _ASKED_AGAIN_SECONDS:
                return kept.found
            try:
                return await self._ask_once(kid)
            except ProviderError:  # the key is still valid as far as we know
                kept.asked_at, kept.ask_again = now, False
                return kept.found
        if kept is None:
            self._admit(kid, now)
        return await self._ask_once(kid)

    def _admit(self, kid: str, now: float) -> None:
        if kid in self._asking:
            return
        if now - self._unknown.get(kid, float("-inf")) < _UNKNOWN_SECONDS:
            raise HookRefused("key_unknown")
        while self._misses and now - self._misses[0] >= 60:
            self._misses.popleft()
        if len(self._misses) >= _UNKNOWN_A_MINUTE:
            raise HookRefused("too_many_unknown_keys")
        self._misses.append(now)
        # A new id may mean that the provider has replaced a key. Then the others have an end, which we must learn.
        for other in self._kept.values():
            other.ask_again |= other.found.expired_at is None

    async def _ask_once(self, kid: str) -> SigningKey:
        """Asks for a key; those who want the same key at the same time wait for one answer."""
        task = self._asking.get(kid)
        if task is None:
            task = self._asking[kid] = asyncio.ensure_future(self._ask(kid))
            task.add_done_callback(lambda _: self._asking.pop(kid, None))
        return await asyncio.shield(task)

    async def _ask(self, kid: str) -> SigningKey:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                found = await self._fetch(kid)
        except TimeoutError:
            raise Transient("key_not_fetched") from None
        if found is None:
            self._kept.pop(kid, None)
            self._unknown[kid] = self._clock()
            _shorten(self._unknown)
            raise HookRefused("key_unknown")
        self._kept[kid] = _Kept(found, self._clock())
        self._unknown.pop(kid, None)
        _shorten(self._kept)
        return found


def _shorten(entries: OrderedDict[str, Any]) -> None:
    while len(entries) > _MOST:
        entries.popitem(last=False)


def p256_key(jwk: dict[str, Any], *, kid: str) -> Any:
    """The public key from a JWK, in the form that PyJWT takes.

    Raises:
        HookRefused: it is no P-256 key for signatures, or has another id.
    """
    wanted = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid}
    if any(jwk.get(name) != value for name, value in wanted.items()):
        raise HookRefused("key_unfit")
    try:
        return PyJWK({name: jwk[name] for name in ("kty", "crv", "x", "y")}, algorithm="ES256").key
    except (PyJWTError, KeyError, TypeError, ValueError):
        raise HookRefused("key_unfit") from None
