"""The sandbox's admin API, for tests and launchers. It answers only on loopback and with the token given at start.

Every call must have the header `X-Sandbox-Admin` with this token; bodies and answers are JSON.

    GET    /admin/ready                         it listens; seed, number of steps so far
    POST   /admin/reset {seed}                  return to the state at start
    POST   /admin/advance {steps, logins}       make new changes in the books
    POST   /admin/clock {offset_seconds}        move the providers' time
    GET    /admin/logins                        all logins; POST `core.LoginSpec` makes more
    POST   /admin/logins/{login} {broken, not_ready_calls, forced_restarts}
    POST   /admin/mint, revoke, expire-access   {logins} or {profile}
    POST   /admin/link/{login} {what the application asked}   what the login's owner would enter to link it
    POST   /admin/policy/{profile}              members of `grants.Policy`
    POST   /admin/faults `faults.Fault`         GET shows hits, DELETE disarms, DELETE /admin/faults/{n} one
    POST   /admin/quotas [`quotas.Quota`]       replaces all
    POST   /admin/barriers `barriers.BarrierSpec`; GET /admin/barriers/{n}?arrivals=&timeout= waits; DELETE releases
    GET    /admin/hooks                         what became of hooks; POST `hooks.Manner` loses, doubles, delays them
    POST   /admin/hooks/{login} {event, count, address}  send hooks; /admin/hooks/rotate/{profile} a new key
    GET    /admin/books/{login}                 the login's books; POST [`books.Mutation`] changes them
    GET    /admin/served                        what each login's client has received
    GET    /admin/log?kind=&login=&path=&after= requests; DELETE forgets them
    GET    /admin/log/overlaps, /admin/log/reuse   two refreshes of a grant at once; tokens sent again
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.sandbox.barriers import BarrierSpec
from worker.sandbox.books import login_books, mutate, served
from worker.sandbox.core import Login, LoginSpec, Sandbox
from worker.sandbox.faults import Fault
from worker.sandbox.loopback import is_loopback
from worker.sandbox.quotas import Quota
from worker.sandbox.wire import encode

TOKEN_HEADER = "x-sandbox-admin"  # noqa: S105 - a header's name

_T = TypeVar("_T")
Handler = Callable[[Request], Awaitable[Response]]


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/reset`."""

    seed: int = 1


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/advance`; without names, all logins."""

    steps: int = 1
    logins: list[str] | None = None


class ClockOffset(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/clock`."""

    offset_seconds: float


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Logins by name, or all of a profile."""

    logins: list[str] = []
    profile: str = ""


class Sending(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/hooks/{login}`; `event` as in `core.Profile.hook`, `address` is where hooks go."""

    event: str = "changed"
    count: int = 1
    address: str | None = None


class LoginState(msgspec.Struct, forbid_unknown_fields=True):
    """Changes to the behaviour of a login's feeds; a member that is left out stays as it is."""

    broken: str | msgspec.UnsetType | None = msgspec.UNSET
    not_ready_calls: int | None = None
    forced_restarts: int | None = None


class _Admin:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        return [
            Route("/admin/ready", self.ready),
            Route("/admin/reset", self.reset, methods=["POST"]),
            Route("/admin/advance", self.advance, methods=["POST"]),
            Route("/admin/clock", self.clock, methods=["GET", "POST"]),
            Route("/admin/logins", self.logins, methods=["GET", "POST"]),
            Route("/admin/logins/{login}", self.login_state, methods=["POST"]),
            Route("/admin/mint", self.mint, methods=["POST"]),
            Route("/admin/revoke", self.revoke, methods=["POST"]),
            Route("/admin/expire-access", self.expire_access, methods=["POST"]),
            Route("/admin/link/{login}", self.link, methods=["POST"]),
            Route("/admin/policy/{profile}", self.policy, methods=["GET", "POST"]),
            Route("/admin/faults", self.faults, methods=["GET", "POST", "DELETE"]),
            Route("/admin/faults/{number:int}", self.fault, methods=["DELETE"]),
            Route("/admin/quotas", self.quotas, methods=["POST"]),
            Route("/admin/barriers", self.barriers, methods=["POST", "DELETE"]),
            Route("/admin/barriers/{number:int}", self.barrier, methods=["GET", "DELETE"]),
            Route("/admin/hooks", self.hooks, methods=["GET", "POST"]),
            Route("/admin/hooks/rotate/{profile}", self.rotate_hook_key, methods=["POST"]),
            Route("/admin/hooks/{login}", self.send_hook, methods=["POST"]),
            Route("/admin/books/{login}", self.books),
            Route("/admin/books/{login}", self.mutate, methods=["POST"]),
            Route("/admin/served", self.served),
            Route("/admin/log", self.log, methods=["GET", "DELETE"]),
            Route("/admin/log/overlaps", self.overlaps),
            Route("/admin/log/reuse", self.reuse),
        ]

    async def ready(self, request: Request) -> Response:
        return _json({"ready": True, "seed": self._sandbox.seed, "steps": self._sandbox.steps})

    async def reset(self, request: Request) -> Response:
        self._sandbox.reset((await _body(request, Reset)).seed)
        return _json({"seed": self._sandbox.seed, "logins": list(self._sandbox.logins)})

    async def advance(self, request: Request) -> Response:
        given = await _body(request, Advance)
        if given.logins is not None:
            self._named(given.logins)
        self._sandbox.advance(given.steps, given.logins)
        return _json({"steps": self._sandbox.steps})

    async def clock(self, request: Request) -> Response:
        if request.method == "POST":
            self._sandbox.clock.offset = (await _body(request, ClockOffset)).offset_seconds
        return _json({"now": self._sandbox.clock.now().isoformat(), "offset_seconds": self._sandbox.clock.offset})

    async def logins(self, request: Request) -> Response:
        if request.method == "GET":
            every = self._sandbox.logins.values()
            return _json([{"login": login.name, "profile": login.profile.key} for login in every])
        spec = await _body(request, LoginSpec)
        if spec.profile not in self._sandbox.profiles:
            raise HTTPException(404, f"no profile {spec.profile!r}")
        return _json({"logins": [login.name for login in self._sandbox.add_logins(spec)]})

    async def login_state(self, request: Request) -> Response:
        (login,) = self._named([request.path_params["login"]])
        given = await _body(request, LoginState)
        if given.broken is not msgspec.UNSET:
            was_broken, login.broken = login.broken, given.broken
            if bool(was_broken) != bool(given.broken):
                self._sandbox.tell(login, "broken" if given.broken else "repaired")
        if given.not_ready_calls is not None:
            login.not_ready_left = given.not_ready_calls
        if given.forced_restarts is not None:
            login.forced_restarts = given.forced_restarts
        return _json({"login": login.name})

    async def mint(self, request: Request) -> Response:
        chosen = await self._chosen(request)
        return _json([{"login": login.name, **login.profile.mint(login)} for login in chosen])

    async def revoke(self, request: Request) -> Response:
        chosen = await self._chosen(request)
        for login in chosen:
            login.profile.revoke(login)
            self._sandbox.tell(login, "revoked")
        return _json({"revoked": [login.name for login in chosen]})

    async def expire_access(self, request: Request) -> Response:
        chosen = await self._chosen(request)
        for login in chosen:
            login.profile.expire_access(login)
        return _json({"expired": [login.name for login in chosen]})

    async def link(self, request: Request) -> Response:
        (login,) = self._named([request.path_params["login"]])
        asked = await _body(request, dict[str, str])
        try:
            return _json(login.profile.consent(login, asked))
        except ValueError as error:
            raise HTTPException(422, f"the provider would refuse this: {error}") from error

    async def policy(self, request: Request) -> Response:
        profile = self._sandbox.profiles.get(request.path_params["profile"])
        if profile is None:
            raise HTTPException(404, "no such profile")
        changes = await _body(request, dict[str, Any]) if request.method == "POST" else {}
        try:
            return _json(profile.configure(changes))
        except msgspec.ValidationError as error:
            raise HTTPException(422, str(error)) from error

    async def faults(self, request: Request) -> Response:
        faults = self._sandbox.faults
        if request.method == "POST":
            return _json({"number": faults.arm(await _body(request, Fault)).number})
        if request.method == "DELETE":
            faults.disarm()
        return _json([{"number": f.number, "do": f.fault.do, "seen": f.seen, "hits": f.hits} for f in faults.all()])

    async def fault(self, request: Request) -> Response:
        self._sandbox.faults.disarm(request.path_params["number"])
        return _json({})

    async def quotas(self, request: Request) -> Response:
        quotas = await _body(request, list[Quota])
        self._sandbox.quotas.set(quotas)
        return _json({"quotas": len(quotas)})

    async def barriers(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._sandbox.barriers.release_all()
            return _json({})
        return _json({"number": self._sandbox.barriers.raise_(await _body(request, BarrierSpec)).number})

    async def barrier(self, request: Request) -> Response:
        number = request.path_params["number"]
        if request.method == "DELETE":
            self._sandbox.barriers.release(number)
            return _json({})
        barrier = self._sandbox.barriers.get(number)
        if barrier is None:
            raise HTTPException(404, "no such barrier, or it was released")
        wanted = int(request.query_params.get("arrivals", "0"))
        arrived = await barrier.arrivals(wanted, float(request.query_params.get("timeout", "10")))
        return _json({"arrived": arrived, "waiting": barrier.waiting})

    async def hooks(self, request: Request) -> Response:
        outbox = self._sandbox.outbox
        if request.method == "GET":
            return _json(outbox.told())
        try:
            return _json(msgspec.to_builtins(outbox.configure(await _body(request, dict[str, Any]))))
        except msgspec.ValidationError as error:
            raise HTTPException(422, str(error)) from error

    async def send_hook(self, request: Request) -> Response:
        (login,) = self._named([request.path_params["login"]])
        given = await _body(request, Sending)
        if given.address is not None:
            login.profile.want_hooks(login, given.address)
        sent = [self._sandbox.tell(login, given.event) for _ in range(given.count)]
        return _json({"sent": sum(sent)})

    async def rotate_hook_key(self, request: Request) -> Response:
        profile = self._sandbox.profiles.get(request.path_params["profile"])
        if profile is None:
            raise HTTPException(404, "no such profile")
        profile.rotate_hook_key()
        return _json({})

    async def books(self, request: Request) -> Response:
        (login,) = self._named([request.path_params["login"]])
        return _json(login_books(login))

    async def mutate(self, request: Request) -> Response:
        (login,) = self._named([request.path_params["login"]])
        try:
            ids = mutate(login, await request.body())
            self._sandbox.tell(login, "changed")
            return _json({"ids": ids})
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            raise HTTPException(422, f"books not changed beyond this point: {error}") from error

    async def served(self, request: Request) -> Response:
        return _json({login.name: served(login) for login in self._sandbox.logins.values() if login.served.requests})

    async def log(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._sandbox.log.clear()
        query = request.query_params
        entries = self._sandbox.log.select(
            kind=query.get("kind", ""),
            login=query.get("login", ""),
            path=query.get("path", ""),
            after=int(query.get("after", "0")),
        )
        return _json(list(entries))

    async def overlaps(self, request: Request) -> Response:
        return _json(self._sandbox.log.overlaps())

    async def reuse(self, request: Request) -> Response:
        return _json(self._sandbox.log.presented_again())

    async def _chosen(self, request: Request) -> list[Login]:
        given = await _body(request, Chosen)
        if given.logins:
            return self._named(given.logins, given.profile)
        return [login for login in self._sandbox.logins.values() if login.profile.key == given.profile]

    def _named(self, names: list[str], profile: str = "") -> list[Login]:
        missing = [name for name in names if name not in self._sandbox.logins]
        if missing:
            raise HTTPException(404, f"no login {missing[0]!r}")
        logins = [self._sandbox.logins[name] for name in names]
        if profile and any(login.profile.key != profile for login in logins):
            raise HTTPException(422, f"not every login is one of {profile!r}")
        return logins


def admin_app(sandbox: Sandbox, token: str) -> Starlette:
    """The Starlette application under `/admin`; every handler first checks the token and that the peer is loopback."""

    def guarded(handler: Handler) -> Handler:
        async def guard(request: Request) -> Response:
            peer = request.client.host if request.client else ""
            if not is_loopback(peer) or not hmac.compare_digest(request.headers.get(TOKEN_HEADER, ""), token):
                raise HTTPException(403, f"send the admin token in {TOKEN_HEADER}, from loopback")
            return await handler(request)

        return guard

    routes = [
        Route(route.path, guarded(route.endpoint), methods=list(route.methods or ()))
        for route in _Admin(sandbox).routes()
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refuse})


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json({"error": getattr(error, "detail", "")}, status)


async def _body(request: Request, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(422, str(error)) from error


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")
