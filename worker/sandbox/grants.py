"""OAuth grants with rotating refresh tokens, for all stand-ins whose provider has them.

A grant is one consent of one login. Its refresh token changes at each refresh; sending an older one again is called
reuse. The tokens are derived from the seed, so that no test fixture contains one.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from worker.sandbox.clock import Clock
from worker.sandbox.wire import digest


class Policy(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How the stand-ins treat their tokens and feeds.

    Attributes:
        access_seconds: Lifetime of an access token.
        grant_seconds: Lifetime of a grant, counted from the consent; a refresh never extends it.
        rotation: `rotate` gives a new refresh token at each refresh, `static` the same one, `omit` none.
        reuse: `strict` revokes the grant when an older refresh token is sent. `grace` accepts the last one before the
            present one again, `grace_times` times and within `grace_seconds` (None: no limit), as long as the present
            one was never used.
        dead_grant: Which of the published bodies is sent for an ended grant; with `vary`, it depends on the login.
        mutation: What happens when the data changes between two pages: the feed demands a restart (`error`) or
            continues (`ignore`).
        code_seconds: Lifetime of an authorization code.
    """

    access_seconds: int = 1800
    grant_seconds: int = 604_800
    rotation: Literal["rotate", "static", "omit"] = "rotate"
    reuse: Literal["strict", "grace"] = "grace"
    grace_times: int = 1
    grace_seconds: float | None = None
    dead_grant: Literal["vary", "unsupported_token_type", "invalid_client", "invalid_grant"] = "vary"
    mutation: Literal["error", "ignore"] = "error"
    code_seconds: int = 30


class DeadGrantError(Exception):
    """The refresh token is not valid any more. `reason`: unknown, revoked, expired, superseded or reused."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True, eq=False)
class Grant:
    """One consent; `successor_used` and `graced` decide whether an older refresh token is still accepted."""

    id: str
    login: str
    profile: str
    issued: float
    expires: float
    generation: int = 0
    dead: str | None = None
    refresh_token: str = ""
    access_token: str = ""
    rotated_at: float = 0.0
    successor_used: bool = True
    graced: int = 0
    access: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class TokenPair:
    """What a token endpoint returns; `refresh_token` is None if the policy omits it."""

    access_token: str
    refresh_token: str | None
    expires_in: int


class Grants:
    """Every grant of one profile."""

    def __init__(
        self, profile: str, seed: int, clock: Clock, *, access_format: str = "{}", refresh_format: str = "{}"
    ) -> None:
        self.profile = profile
        self._formats = {"access": access_format, "refresh": refresh_format}
        self.policy = Policy()
        self._seed = seed
        self._clock = clock
        self._grants: dict[str, Grant] = {}
        self._of_login: dict[str, Grant] = {}
        self._by_refresh: dict[str, tuple[Grant, int]] = {}
        self._by_access: dict[str, Grant] = {}
        self._number = 0

    def issue(self, login: str) -> tuple[Grant, TokenPair]:
        """A new consent; it ends the login's earlier one."""
        earlier = self._of_login.get(login)
        if earlier is not None and earlier.dead is None:
            self.kill(earlier, "superseded")
        self._number += 1
        now = self._clock.seconds()
        grant = Grant(f"{login}.{self._number}", login, self.profile, now, now + self.policy.grant_seconds)
        self._grants[grant.id] = self._of_login[login] = grant
        return grant, self._next_pair(grant, rotate=True)

    def lookup(self, refresh_token: str) -> tuple[Grant, int] | None:
        """The grant and the generation of a refresh token, whether the grant has ended or not."""
        return self._by_refresh.get(refresh_token)

    def bearer(self, access_token: str) -> Grant | None:
        """The grant of any access token that was ever issued, valid or not."""
        return self._by_access.get(access_token)

    def of_login(self, login: str) -> Grant | None:
        """The newest grant of a login."""
        return self._of_login.get(login)

    def all(self) -> list[Grant]:
        """Every grant ever issued, oldest first."""
        return list(self._grants.values())

    def admits(self, access_token: str) -> bool:
        """Whether an access token is valid now. Using it also proves that the client got its refresh token."""
        grant = self._by_access.get(access_token)
        now = self._clock.seconds()
        if (
            grant is None
            or grant.dead is not None
            or now >= grant.expires
            or now >= grant.access.get(access_token, 0.0)
        ):
            return False
        if access_token == grant.access_token:
            grant.successor_used = True
        return True

    def refresh(self, refresh_token: str) -> tuple[Grant, TokenPair]:
        """Exchanges a refresh token for new tokens.

        Raises:
            DeadGrantError: The token is unknown, its grant has ended, or sending it again has just ended the grant.
        """
        found = self._by_refresh.get(refresh_token)
        if found is None:
            raise DeadGrantError("unknown")
        grant, _ = found
        if grant.dead is None and self._clock.seconds() >= grant.expires:
            self.kill(grant, "expired")
        if grant.dead is not None:
            raise DeadGrantError(grant.dead)
        if refresh_token == grant.refresh_token:
            grant.successor_used = True
            grant.graced = 0
        elif not self._graceful(found):
            self.kill(grant, "reused")
            raise DeadGrantError("reused")
        else:
            grant.graced += 1
        return grant, self._next_pair(grant, rotate=self.policy.rotation == "rotate")

    def kill(self, grant: Grant, reason: str) -> None:
        """Ends a grant for the given reason."""
        grant.dead = reason

    def expire_access(self, grant: Grant) -> None:
        """Makes every access token of the grant expire now; the grant itself stays valid."""
        grant.access = dict.fromkeys(grant.access, 0.0)

    def _graceful(self, found: tuple[Grant, int]) -> bool:
        # Only a token whose answer may have been lost is accepted: the one that the newest rotation replaced, or one
        # that was already accepted again in this way.
        grant, generation = found
        policy = self.policy
        if policy.reuse != "grace" or grant.successor_used or grant.graced >= policy.grace_times:
            return False
        if generation != grant.generation - 1 - grant.graced:
            return False
        return policy.grace_seconds is None or self._clock.seconds() - grant.rotated_at <= policy.grace_seconds

    def _next_pair(self, grant: Grant, *, rotate: bool) -> TokenPair:
        now = self._clock.seconds()
        number = grant.generation + 1
        grant.access_token = self._token("access", grant.id, number)
        live = {token: until for token, until in grant.access.items() if until > now}
        live[grant.access_token] = now + self.policy.access_seconds
        grant.access = live
        self._by_access[grant.access_token] = grant
        grant.generation = number
        if rotate:
            grant.refresh_token = self._token("refresh", grant.id, number)
            grant.successor_used = number == 1
            grant.rotated_at = now
            self._by_refresh[grant.refresh_token] = (grant, number)
        omitted = self.policy.rotation == "omit" and number > 1
        return TokenPair(grant.access_token, None if omitted else grant.refresh_token, self.policy.access_seconds)

    def _token(self, kind: str, grant: str, number: int) -> str:
        made_up = base64.urlsafe_b64encode(digest(self._seed, kind, grant, number, size=42)).decode()
        return self._formats[kind].format(made_up)


def token_digest(token: str) -> str:
    """A short digest of a token, for logs."""
    return digest("log", token, size=6).hex()
