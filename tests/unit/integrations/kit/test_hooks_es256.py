"""Hooks with a signed token in a header: every way to forge one is refused, with its reason."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.hook_vectors import BODY, NAME, Signer, forged
from worker.errors import HookRefused, RateLimited, Transient
from worker.integrations.kit.hooks import Ask, Delivery, Hook, Hooks, words
from worker.integrations.kit.hooks.es256 import SignedToken
from worker.integrations.kit.hooks.signing_keys import SigningKey, SigningKeys, p256_key

NOW = datetime(2026, 11, 1, 12, 0, 0, 500_000, tzinfo=UTC)
GOOD = Signer()
VECTORS = forged(GOOD, body=BODY, now=NOW.timestamp())


@dataclass
class Provider:
    """Answers for keys, as a provider does."""

    known: dict[str, dict[str, Any]] = field(default_factory=lambda: {GOOD.kid: GOOD.jwk()})
    expired: dict[str, datetime] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    trouble: Exception | None = None

    async def __call__(self, kid: str) -> SigningKey | None:
        self.asked.append(kid)
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        if kid not in self.known:
            return None
        return SigningKey(p256_key(self.known[kid], kid=kid), self.expired.get(kid))


class Reader(Hooks):
    """Takes every hook for news of the login that it names."""

    def read(self, body: Any) -> Hook:
        return Hook(words(body.get("kind")), "", login=body.get("login"), asks=frozenset({Ask.SYNC}))


def _hooks(provider: Provider | None = None) -> Hooks:
    return Reader(SignedToken(NAME.lower(), SigningKeys(provider or Provider()), hash_claim="request_body_sha256"))


def _delivery(headers: list[tuple[str, str]], body: bytes = BODY, at: datetime = NOW) -> Delivery:
    return Delivery(tuple((name.lower(), value) for name, value in headers), body, at)


def _signed(body: bytes = BODY, *, key: Signer = GOOD, at: datetime = NOW, **how: Any) -> Delivery:
    return _delivery([(NAME, key.token(body, now=NOW.timestamp(), **how))], body, at)


def _refusal(hooks: Hooks, delivery: Delivery) -> str:
    with pytest.raises(HookRefused) as refused:
        asyncio.run(hooks.receive(delivery))
    return refused.value.reason


@pytest.mark.parametrize("name", VECTORS)
def test_forged_hook_is_refused(name: str) -> None:
    vector = VECTORS[name]

    assert _refusal(_hooks(), _delivery(vector.headers, vector.body)) == vector.reason


def test_genuine_hook_is_accepted_and_a_second_delivery_has_the_same_id() -> None:
    hooks = _hooks()

    first, second = (asyncio.run(hooks.receive(_signed())) for _ in range(2))

    assert first.delivery_id == second.delivery_id
    assert first.asks == {Ask.SYNC}


@pytest.mark.parametrize(("seconds", "accepted"), [(-300, True), (-301, False), (60, True), (61, False)])
def test_time_of_signing_has_limits(seconds: int, accepted: bool) -> None:
    delivery = _signed(at=datetime.fromtimestamp(int(NOW.timestamp()) - seconds, UTC))

    if accepted:
        assert asyncio.run(_hooks().receive(delivery))
    else:
        assert _refusal(_hooks(), delivery) == ("too_old" if seconds < 0 else "too_new")


def test_hash_in_capital_letters_is_the_same_hash() -> None:
    from hashlib import sha256

    delivery = _signed(claims={"request_body_sha256": sha256(BODY).hexdigest().upper()})

    assert asyncio.run(_hooks().receive(delivery))


@pytest.mark.parametrize(
    "change",
    [{"kty": "RSA"}, {"crv": "P-384"}, {"alg": "ES384"}, {"use": "enc"}, {"kid": "another"}, {"x": "AA"}, {"y": 7}],
)
def test_key_that_is_not_fit_is_not_used(change: dict[str, Any]) -> None:
    provider = Provider({GOOD.kid: GOOD.jwk() | change})

    assert _refusal(_hooks(provider), _signed()) == "key_unfit"


@pytest.mark.parametrize(
    ("expired_after", "received_after", "reason"),
    [(0, 1, "key_expired"), (1, 2, None), (1, 299, None), (-600, 1, "key_expired")],
)
def test_key_with_an_end(expired_after: int, received_after: int, reason: str | None) -> None:
    signed_at = datetime.fromtimestamp(int(NOW.timestamp()), UTC)
    provider = Provider(expired={GOOD.kid: signed_at + timedelta(seconds=expired_after)})
    delivery = _signed(at=signed_at + timedelta(seconds=received_after))

    if reason is None:
        assert asyncio.run(_hooks(provider).receive(delivery))
    else:
        assert _refusal(_hooks(provider), delivery) == reason


@pytest.mark.parametrize("trouble", [Transient("503"), RateLimited("too_often")])
def test_key_that_cannot_be_asked_for_says_nothing_about_the_hook(trouble: Exception) -> None:
    with pytest.raises(type(trouble)):
        asyncio.run(_hooks(Provider(trouble=trouble)).receive(_signed()))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"a": ' + b"[" * 10_000,
    ],
)
def test_genuine_hook_that_cannot_be_read_asks_for_nothing(body: bytes) -> None:
    hook = asyncio.run(_hooks().receive(_signed(body)))

    assert (hook.kind, hook.is_known, hook.asks) == ("unreadable", False, frozenset())


def test_kind_is_never_longer_than_words() -> None:
    hook = asyncio.run(_hooks().receive(_signed(json.dumps({"kind": "x" * 5000}).encode())))

    assert hook.kind == "other"


# Keys that are kept --------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_key_is_kept_for_a_day() -> None:
    clock, other = Clock(), Signer(kid="another-key")
    provider = Provider({GOOD.kid: GOOD.jwk(), other.kid: other.jwk()})

    async def use() -> None:
        keys = SigningKeys(provider, clock=clock)
        for _ in range(3):
            await keys.get(GOOD.kid)
            await keys.get(other.kid)
        # The second key was new, so the first one is asked for once more when a minute has passed.
        assert provider.asked == [GOOD.kid, other.kid]
        clock.now += 61
        await keys.get(GOOD.kid)
        await keys.get(GOOD.kid)
        assert provider.asked == [GOOD.kid, other.kid, GOOD.kid]
        clock.now += 24 * 3600
        await keys.get(GOOD.kid)
        assert len(provider.asked) == 4

    asyncio.run(use())


def test_end_of_a_key_is_learnt_when_a_new_key_appears() -> None:
    clock, newer = Clock(), Signer(kid="newer-key")
    provider = Provider()

    async def use() -> None:
        keys = SigningKeys(provider, clock=clock)
        assert (await keys.get(GOOD.kid)).expired_at is None
        clock.now += 120
        provider.known[newer.kid], provider.expired[GOOD.kid] = newer.jwk(), NOW
        await keys.get(newer.kid)
        assert (await keys.get(GOOD.kid)).expired_at == NOW

    asyncio.run(use())


def test_known_key_is_used_while_the_provider_is_away() -> None:
    clock = Clock()
    provider = Provider()

    async def use() -> None:
        keys = SigningKeys(provider, clock=clock)
        known = await keys.get(GOOD.kid)
        clock.now += 120
        provider.trouble = Transient("503")
        with pytest.raises(Transient):
            await keys.get("new-key")
        assert await keys.get(GOOD.kid) is known

    asyncio.run(use())


def test_unknown_key_is_asked_for_once_a_minute() -> None:
    clock, provider = Clock(), Provider()

    async def use() -> None:
        keys = SigningKeys(provider, clock=clock)
        for _ in range(100):
            with pytest.raises(HookRefused, match="key_unknown"):
                await keys.get("nobody")
        assert provider.asked == ["nobody"]
        clock.now += 61
        provider.known["nobody"] = Signer(kid="nobody").jwk()
        assert await keys.get("nobody")

    asyncio.run(use())


def test_ten_unknown_keys_a_minute_are_asked_for_and_known_ones_still_serve() -> None:
    clock, provider = Clock(), Provider()

    async def use() -> None:
        keys = SigningKeys(provider, clock=clock)
        await keys.get(GOOD.kid)
        refused = []
        for number in range(100):
            with pytest.raises(HookRefused) as error:
                await keys.get(f"nobody-{number}")
            refused.append(error.value.reason)
            assert await keys.get(GOOD.kid)
        assert refused.count("key_unknown") == 9  # and the good one, which was unknown once
        assert refused.count("too_many_unknown_keys") == 91
        assert len(provider.asked) == 10

    asyncio.run(use())


def test_those_who_want_a_key_at_the_same_time_share_one_answer() -> None:
    provider = Provider()

    async def use() -> None:
        keys = SigningKeys(provider, clock=Clock())
        await asyncio.gather(*(keys.get(GOOD.kid) for _ in range(50)))

    asyncio.run(use())
    assert provider.asked == [GOOD.kid]


def test_no_more_than_a_hundred_keys_are_kept() -> None:
    clock = Clock()
    provider = Provider({f"key-{number}": Signer(kid=f"key-{number}").jwk() for number in range(120)})

    async def use() -> None:
        keys = SigningKeys(provider, clock=clock)
        for kid in provider.known:
            clock.now += 7
            await keys.get(kid)
        assert len(keys._kept) == 100

    asyncio.run(use())
