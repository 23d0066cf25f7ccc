"""Tokens that are good for one exchange and a short time: authorisation codes, public tokens, setup tokens."""

from __future__ import annotations

from dataclasses import dataclass

from worker.sandbox.clock import Clock


@dataclass(frozen=True, slots=True)
class Handed:
    """What a token was handed out for.

    Attributes:
        login: Whose.
        expires: When it ends, by the sandbox's clock.
        redirect_uri, challenge: What its exchange must fit; empty where nothing was asked.
    """

    login: str
    expires: float
    redirect_uri: str = ""
    challenge: str = ""


class OneTimeTokens:
    """Every token that was handed out and not exchanged."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handed: dict[str, Handed] = {}

    def hand_out(self, token: str, login: str, seconds: float, *, redirect_uri: str = "", challenge: str = "") -> str:
        """The token, from now on known for so many seconds."""
        self._handed[token] = Handed(login, self._clock.seconds() + seconds, redirect_uri, challenge)
        return token

    def login(self, token: str) -> str | None:
        """Whose it is; it stays as it was."""
        handed = self._handed.get(token)
        return handed.login if handed else None

    def take(self, token: str) -> Handed | None:
        """What it was handed out for; None when it is unknown, used or too old. Gone after the first attempt."""
        handed = self._handed.pop(token, None)
        return handed if handed and self._clock.seconds() < handed.expires else None
