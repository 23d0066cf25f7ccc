"""Tokens that are valid for one exchange and a short time: authorization codes, public tokens, setup tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.clock import Clock


@dataclass(frozen=True, slots=True)
class Handed:
    """The data of an issued token.

    Attributes:
        login: The login that it belongs to.
        expires: When it expires, by the sandbox's clock.
        redirect_uri, challenge: What the exchange must match; empty if there is nothing to match.
        about: What the application asked for when it asked for consent.
    """

    login: str
    expires: float
    redirect_uri: str = ""
    challenge: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


class OneTimeTokens:
    """Every token that was issued and not yet exchanged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handed: dict[str, Handed] = {}

    def hand_out(self, token: str, login: str, seconds: float, **more: Any) -> str:
        """Records the token, which is then valid for this many seconds, and returns it; for `more` see `Handed`."""
        self._handed[token] = Handed(login, self._clock.seconds() + seconds, **more)
        return token

    def login(self, token: str) -> str | None:
        """The login of a token; the token stays valid."""
        handed = self._handed.get(token)
        return handed.login if handed else None

    def take(self, token: str) -> Handed | None:
        """The data of a token; None if it is unknown, used or too old. After the first attempt it is invalid."""
        handed = self._handed.pop(token, None)
        return handed if handed and self._clock.seconds() < handed.expires else None
