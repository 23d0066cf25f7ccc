"""The state of the sandbox: people's logins, their books, and everything that tests switch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar

import msgspec

from worker.sandbox.barriers import Barriers
from worker.sandbox.clock import Clock
from worker.sandbox.faults import Faults
from worker.sandbox.grants import Policy
from worker.sandbox.ledger import Account, Ledger, Transaction
from worker.sandbox.people import securities
from worker.sandbox.quotas import Quotas
from worker.sandbox.request_log import RequestLog
from worker.sandbox.wire import Answer, Request, encode, json_answer

_PRICE_MOVE = Decimal("0.05")
_STATUSES = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "internal": 500,
    "unavailable": 503,
}


class LoginSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How big a login's books are and how its feeds start.

    Attributes:
        accounts: Number of accounts; None for the profile's usual mix.
        transactions: History rows in all accounts together.
        history_days: How far back the history reaches.
        not_ready_calls: How many feed requests answer "not ready" before the first data.
        warm: Make and render the books at once, so that a benchmark does not measure the sandbox making them.
    """

    profile: str
    count: int = 1
    accounts: int | None = None
    transactions: int = 300
    history_days: int = 400
    not_ready_calls: int = 0
    warm: bool = False


@dataclass(slots=True)
class Served:
    """What a login's client has been told and not told to forget."""

    accounts: set[str] = field(default_factory=set)
    transactions: set[str] = field(default_factory=set)
    holdings: set[tuple[str, str]] = field(default_factory=set)
    rows: int = 0
    requests: int = 0

    def window(self, rows: Iterable[Transaction], gone: Iterable[Transaction]) -> None:
        """Note that a window of the books was listed: these rows are in it, those are not any more."""
        self.transactions.difference_update(row.id for row in gone)
        for row in rows:
            self.transactions.add(row.id)
            self.rows += 1


class Login:
    """One person's login at one provider. The books are made when first looked at, so that a fleet costs nothing."""

    def __init__(self, sandbox: Sandbox, name: str, ordinal: int, profile: Profile, spec: LoginSpec) -> None:
        self.name = name
        self.ordinal = ordinal
        self.profile = profile
        self.spec = spec
        self.sandbox = sandbox
        self.served = Served()
        self.not_ready_left = spec.not_ready_calls
        self.forced_restarts = 0
        self.visible_from: date | None = None
        self.broken: str | None = None
        self._ledger: Ledger | None = None

    @cached_property
    def random(self) -> random.Random:
        """The login's own chance, so that its books depend on no other login's."""
        return random.Random(f"{self.sandbox.seed}/{self.name}")  # noqa: S311 - made-up data that must repeat

    @property
    def ledger(self) -> Ledger:
        """The books, made when first asked for."""
        return self._ledger if self._ledger is not None else self.open_books()

    def open_books(self) -> Ledger:
        """Make the books unless they exist."""
        if self._ledger is None:
            self._ledger = self.profile.furnish(self)
        return self._ledger

    def visible(self, transaction: Transaction) -> bool:
        """Whether the feed reaches back to this row."""
        return self.visible_from is None or transaction.date >= self.visible_from


@dataclass(slots=True)
class Caller:
    """Who sent a request, as far as its credentials tell. `kind` is refresh, exchange or data."""

    kind: str = "data"
    login: str | None = None
    grant: str | None = None
    generation: int | None = None
    token: str | None = None


class Profile:
    """The stand-in of one provider API: its books and its wire format. Everything else comes with the sandbox.

    Attributes:
        key: Its integration's key; the first part of every path and of every login's name.
        credentials: Values of the integration's settings that the stand-in accepts, by the settings' names without
            prefix.
        cash_is_a_holding: Whether an account's cash is listed among its positions.
        policy: Switches that tests change; a stand-in heeds those that mean something to its provider.
        market: Securities by symbol, shared by all its logins.
    """

    key: ClassVar[str]
    credentials: ClassVar[Mapping[str, str]] = {}
    cash_is_a_holding: ClassVar[bool] = False
    _moving: ClassVar[tuple[str, ...]] = ("ACME", "CRNE", "WIDE")

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.policy = Policy()
        self.market = securities(sandbox.seed, sandbox.clock.today())

    # What every stand-in says for itself

    def caller(self, request: Request) -> Caller:
        """Who is calling; cheap, changes nothing."""
        raise NotImplementedError

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The provider's answer; never raises for anything a client sends."""
        raise NotImplementedError

    def error(self, name: str) -> Answer:
        """The provider's published error of that name. Raises KeyError for a name that it does not know."""
        return json_answer(_STATUSES[name], {"error": name})

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The provider's 429."""
        headers = [(b"retry-after", retry_after.encode("latin-1"))] if retry_after else []
        return json_answer(429, {"message": "Too many requests"}, headers)

    def furnish(self, login: Login) -> Ledger:
        """Books for a new login, the same for the same seed, login and day."""
        raise NotImplementedError

    def move(self, login: Login, moment: datetime) -> None:
        """Change one login's books: new rows, pending ones posted."""
        raise NotImplementedError

    def transaction(self, login: Login, account: Account, moment: datetime) -> Transaction:
        """A plausible posted transaction, not yet in the books."""
        raise NotImplementedError

    def written(self, row: Transaction) -> dict[str, Any]:
        """One transaction as the provider writes it; a Decimal becomes a number with exactly its digits."""
        raise NotImplementedError

    def mint(self, login: Login) -> dict[str, Any]:
        """Credentials for a login without its owner clicking anything."""
        raise NotImplementedError

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """What the login's owner would hand over, by the names of the fields of the integration's link form.

        Args:
            login: Whose.
            asked: What the application asked the owner for: the parameters of its authorise address, if it has one.

        Raises:
            ValueError: The provider would refuse what was asked.
        """
        raise NotImplementedError

    def revoke(self, login: Login) -> None:
        """End every credential of the login, as its owner would at the provider's site."""
        raise NotImplementedError

    def expire_access(self, login: Login) -> None:
        """Let the access tokens of the login run out now; nothing where they never do."""

    # What they have in common

    def render(self, row: Transaction) -> bytes:
        """One transaction as JSON, kept until it changes."""
        if row.rendered is None:
            row.rendered = encode(self.written(row))
        return row.rendered

    def warm(self, login: Login) -> None:
        """Make the login's books and render every row of them."""
        for row in login.ledger.transactions.values():
            self.render(row)

    def step(self, login: Login, moment: datetime) -> None:
        """Move a price, and one login's books on by one step."""
        self.market[login.random.choice(self._moving)].price += login.random.choice((-1, 1)) * _PRICE_MOVE
        self.move(login, moment)

    def configure(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Change the given switches of the policy; answers all of them. Raises ValidationError for a wrong one."""
        self.policy = msgspec.convert(msgspec.to_builtins(self.policy) | policy, Policy)
        return dict(msgspec.to_builtins(self.policy))

    def next_login(self, linked: Callable[[str], bool]) -> str | None:
        """The first login of this provider that is not linked, else the first; None when there is none."""
        mine = [name for name, login in self.sandbox.logins.items() if login.profile is self]
        return next((name for name in mine if not linked(name)), mine[0] if mine else None)


class Sandbox:
    """Everything between two resets."""

    def __init__(
        self, seed: int, profiles: Iterable[type[Profile]], population: dict[str, int], policy: dict[str, Any]
    ) -> None:
        self.log = RequestLog()
        self.barriers = Barriers()
        self.clock = Clock()
        self._profiles = tuple(profiles)
        self._population = population
        self._policy = policy
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Back to the state at start, with this seed; requests that stand at a barrier go on."""
        self.barriers.release_all()
        self.seed = seed
        self.clock.offset = 0.0
        self.faults = Faults(seed)
        self.quotas = Quotas()
        self.log.clear()
        self.steps = 0
        self.logins: dict[str, Login] = {}
        self.profiles: dict[str, Profile] = {profile.key: profile(self) for profile in self._profiles}
        for started in self.profiles.values():
            started.configure(self._policy)
        for key, count in self._population.items():
            self.add_logins(LoginSpec(profile=key, count=count))

    def add_logins(self, spec: LoginSpec) -> list[Login]:
        """New logins, named by profile and running number.

        Raises:
            KeyError: No such profile.
        """
        profile = self.profiles[spec.profile]
        taken = sum(1 for login in self.logins.values() if login.profile is profile)
        added = [
            Login(self, f"{spec.profile}-{number}", number, profile, spec)
            for number in range(taken + 1, taken + spec.count + 1)
        ]
        self.logins.update((login.name, login) for login in added)
        if spec.warm:
            for login in added:
                profile.warm(login)
        return added

    def advance(self, steps: int, logins: Iterable[str] | None = None) -> None:
        """Move the books on. Logins without any history (fleets) stay as they are.

        Raises:
            KeyError: No such login.
        """
        chosen = [self.logins[name] for name in logins] if logins is not None else list(self.logins.values())
        moving = [login for login in chosen if login.spec.transactions]
        for login in moving:
            # Prices are shared: all books must exist before the first of them moves.
            login.open_books()
        for _ in range(steps):
            self.steps += 1
            moment = self.clock.step_moment(self.steps)
            for login in moving:
                login.profile.step(login, moment)
