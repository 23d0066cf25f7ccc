"""The state of the sandbox: people's logins, their books, and all switches for tests; base class of the stand-ins."""

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
from worker.sandbox.hooks import Outbox, Outgoing
from worker.sandbox.ledger import Account, Ledger, Transaction
from worker.sandbox.loopback import is_loopback
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
    """The size of a login's books and the first answers of its feeds.

    Attributes:
        accounts: Number of accounts; None for the profile's usual accounts.
        transactions: Number of history rows in all accounts together.
        history_days: How far back the history goes.
        not_ready_calls: How many feed requests are answered with "not ready" before the first data.
        warm: Makes and renders the books at once, so that a benchmark does not measure this work.
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
    """What a login's client has received, without what was removed later."""

    accounts: set[str] = field(default_factory=set)
    transactions: set[str] = field(default_factory=set)
    holdings: set[tuple[str, str]] = field(default_factory=set)
    rows: int = 0
    requests: int = 0

    def window(self, rows: Iterable[Transaction], gone: Iterable[Transaction]) -> None:
        """Records that a window of the books was listed: `rows` are in it; `gone` are not in it any more."""
        self.transactions.difference_update(row.id for row in gone)
        for row in rows:
            self.transactions.add(row.id)
            self.rows += 1


class Login:
    """One person's login at one provider. The books are made only when needed, so that many logins cost little."""

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
        """The login's own random generator, so that its books do not depend on other logins."""
        return random.Random(f"{self.sandbox.seed}/{self.name}")  # noqa: S311 - made-up data that must repeat

    @property
    def ledger(self) -> Ledger:
        """The books; they are made at the first access."""
        return self._ledger if self._ledger is not None else self.open_books()

    def open_books(self) -> Ledger:
        """Makes the books if they do not exist yet."""
        if self._ledger is None:
            self._ledger = self.profile.furnish(self)
        return self._ledger

    @property
    def trouble(self) -> tuple[str, str]:
        """`broken` as a word and what stands after it: `refused/0` is `("refused", "0")`."""
        word, _, about = (self.broken or "").partition("/")
        return word, about

    def trouble_of(self, account: Account) -> str | None:
        """The word in `broken` if the number after it is that of this account within the login; else None."""
        word, number = self.trouble
        return word if number == str(list(self.ledger.accounts).index(account.id)) else None

    def visible(self, transaction: Transaction) -> bool:
        """Whether the feed goes back far enough to include this row."""
        return self.visible_from is None or transaction.date >= self.visible_from


@dataclass(slots=True)
class Caller:
    """The sender of a request, as far as its credentials show it. `kind` is refresh, exchange or data."""

    kind: str = "data"
    login: str | None = None
    grant: str | None = None
    generation: int | None = None
    token: str | None = None


class Profile:
    """The stand-in of one provider API: its books and its wire format. The sandbox does everything else.

    Attributes:
        key: Its integration's key; the first part of every path and of every login's name.
        credentials: Values of the integration's settings that the stand-in accepts, by the settings' names without
            prefix.
        addresses: Paths of the stand-in to which other settings must point, by the settings' names without prefix.
        cash_is_a_holding: Whether an account's cash is listed among its positions.
        policy: Switches that tests change; a stand-in uses those that make sense for its provider.
        unknown_token: An access token in the provider's format that belongs to no login.
        market: Securities by symbol, shared by all its logins.
    """

    key: ClassVar[str]
    credentials: ClassVar[Mapping[str, str]] = {}
    addresses: ClassVar[Mapping[str, str]] = {}
    cash_is_a_holding: ClassVar[bool] = False
    unknown_token: ClassVar[str] = "access-SECRETWORD-1"  # noqa: S105 - made up
    _moving: ClassVar[tuple[str, ...]] = ("ACME", "CRNE", "WIDE")

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.policy = Policy()
        self.market = securities(sandbox.seed, sandbox.clock.today())

    # What every stand-in defines

    def caller(self, request: Request) -> Caller:
        """The sender of a request. It is fast and changes nothing."""
        raise NotImplementedError

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The provider's answer. No request of a client makes it raise an error."""
        raise NotImplementedError

    def error(self, name: str) -> Answer:
        """The provider's published error with that name. Raises KeyError for an unknown name."""
        return json_answer(_STATUSES[name], {"error": name})

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The provider's 429."""
        headers = [(b"retry-after", retry_after.encode("latin-1"))] if retry_after else []
        return json_answer(429, {"message": "Too many requests"}, headers)

    def furnish(self, login: Login) -> Ledger:
        """Books for a new login; the same seed, login and day give the same books."""
        raise NotImplementedError

    def move(self, login: Login, moment: datetime) -> None:
        """Changes one login's books: adds rows and posts pending ones."""
        raise NotImplementedError

    def transaction(self, login: Login, account: Account, moment: datetime) -> Transaction:
        """A realistic posted transaction that is not in the books yet."""
        raise NotImplementedError

    def written(self, row: Transaction) -> dict[str, Any]:
        """One transaction as the provider writes it; a Decimal becomes a number with exactly the same digits."""
        raise NotImplementedError

    def mint(self, login: Login) -> dict[str, Any]:
        """Creates credentials for a login without any action of its owner."""
        raise NotImplementedError

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """What the login's owner would enter, by the names of the fields of the integration's link form.

        Args:
            login: The login to link.
            asked: The parameters of the authorize URL with which the application asks for consent, if it has one.

        Raises:
            ValueError: The provider would refuse what was asked.
        """
        raise NotImplementedError

    def revoke(self, login: Login) -> None:
        """Ends every credential of the login, as its owner would do it at the provider's site."""
        raise NotImplementedError

    def expire_access(self, login: Login) -> None:
        """Makes the login's access tokens expire now; does nothing if they never expire."""

    # Hooks, for providers that send them

    def want_hooks(self, login: Login, address: str | None) -> None:
        """Sets where the hooks about a linked login are sent, as its application would ask for it."""

    def hook(self, login: Login, event: str) -> Outgoing | None:
        """The hook about a login; None if the provider sends none, or not about this.

        Args:
            login: The login that it is about.
            event: `changed`, `revoked`, `broken` or `repaired`, or the provider's own words for a kind of hook.
        """
        return None

    def sign_hook(self, body: bytes) -> Mapping[str, str]:
        """The headers with which the provider signs a body."""
        raise NotImplementedError

    def rotate_hook_key(self) -> None:
        """Replaces the key that signs hooks; does nothing if there is none."""

    # What all stand-ins have in common

    def render(self, row: Transaction) -> bytes:
        """One transaction as JSON; the text is kept until the transaction changes."""
        if row.rendered is None:
            row.rendered = encode(self.written(row))
        return row.rendered

    def warm(self, login: Login) -> None:
        """Makes the login's books and renders all their rows."""
        for row in login.ledger.transactions.values():
            self.render(row)

    def step(self, login: Login, moment: datetime) -> None:
        """Changes a price, and changes one login's books by one step."""
        self.market[login.random.choice(self._moving)].price += login.random.choice((-1, 1)) * _PRICE_MOVE
        self.move(login, moment)

    def configure(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Changes the given switches of the policy and returns all of them. Raises ValidationError for a wrong one."""
        self.policy = msgspec.convert(msgspec.to_builtins(self.policy) | policy, Policy)
        return dict(msgspec.to_builtins(self.policy))

    def next_login(self, linked: Callable[[str], bool]) -> str | None:
        """The first login of this provider that is not linked, or else its first login; None if it has no logins."""
        mine = [name for name, login in self.sandbox.logins.items() if login.profile is self]
        return next((name for name in mine if not linked(name)), mine[0] if mine else None)


class Sandbox:
    """The whole state of the sandbox since the last reset."""

    def __init__(
        self, seed: int, profiles: Iterable[type[Profile]], population: dict[str, int], policy: dict[str, Any]
    ) -> None:
        self.log = RequestLog()
        self.barriers = Barriers()
        self.clock = Clock()
        self._profiles = tuple(profiles)
        self._population = population
        self._policy = policy
        self.outbox = Outbox(seed, is_loopback)
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Returns to the state at start, with this seed; requests that wait at a barrier continue."""
        self.barriers.release_all()
        self.seed = seed
        self.clock.offset = 0.0
        self.faults = Faults(seed)
        self.quotas = Quotas()
        self.outbox.close()
        self.outbox = Outbox(seed, is_loopback)
        self.log.clear()
        self.steps = 0
        self.logins: dict[str, Login] = {}
        self.profiles: dict[str, Profile] = {profile.key: profile(self) for profile in self._profiles}
        for started in self.profiles.values():
            started.configure(self._policy)
        for key, count in self._population.items():
            self.add_logins(LoginSpec(profile=key, count=count))

    def add_logins(self, spec: LoginSpec) -> list[Login]:
        """Adds logins, named by profile and a running number.

        Raises:
            KeyError: There is no such profile.
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
        """Makes new changes in the books. Logins without any history (for benchmarks) stay as they are.

        Raises:
            KeyError: There is no such login.
        """
        chosen = [self.logins[name] for name in logins] if logins is not None else list(self.logins.values())
        moving = [login for login in chosen if login.spec.transactions]
        for login in moving:
            # All logins share the prices, so all books must exist before the first change.
            login.open_books()
        for _ in range(steps):
            self.steps += 1
            moment = self.clock.step_moment(self.steps)
            for login in moving:
                login.profile.step(login, moment)
        for login in moving if steps else ():
            self.tell(login, "changed")

    def tell(self, login: Login, event: str) -> bool:
        """Sends the provider's hook about a login, if it has one for this event. Returns whether it has."""
        hook = login.profile.hook(login, event)
        if hook is not None:
            self.outbox.post(hook)
        return hook is not None
