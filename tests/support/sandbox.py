"""The sandbox in a process of its own, and its switches as methods that read like sentences."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.support.tracing import counting
from tests.support.waiting import PATIENCE_S
from worker.sandbox.app import SandboxApp
from worker.sandbox.core import Profile
from worker.sandbox.stand_ins import stand_ins, variables


@cache
def _profiles() -> list[type[Profile]]:
    # Finding them reads what is installed, which does not change while tests run.
    usable, problems = stand_ins()
    assert not problems, problems
    return list(usable.values())


class SandboxProcess:
    """`python -m worker.sandbox` on a free port. Use as a context manager, or call `start` and `stop`.

    Attributes:
        base_url: Where it listens, once started.
        admin_token: What its admin side asks for; new for each process.
    """

    def __init__(self, *arguments: str, seed: int = 1) -> None:
        self._arguments = (*arguments, "--seed", str(seed), "--port", "0")
        self._process: subprocess.Popen[str] | None = None
        self.admin_token = secrets.token_urlsafe(16)
        self.base_url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the sandbox was not started"
        return self._process.pid

    @property
    def port(self) -> int:
        return urlsplit(self.base_url).port or 0

    def url(self, provider_key: str) -> str:
        """Where one provider's API is."""
        return f"{self.base_url}/{provider_key}"

    def variables(self, url: str = "") -> dict[str, str]:
        """What makes every integration use its stand-in; `url` is another place from which the sandbox is reached."""
        of_each = [variables(profile, url or self.base_url) for profile in _profiles()]
        return {name: value for of_one in of_each for name, value in of_one.items()}

    def start(self) -> Self:
        """Start and wait until it listens.

        Raises:
            RuntimeError: It ended, or said nothing in time; its output is in the message.
        """
        environment = os.environ | {"DASHTAM_SANDBOX_ADMIN_TOKEN": self.admin_token}
        self._process = subprocess.Popen(
            [sys.executable, *counting("sandbox"), "-m", "worker.sandbox", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        heard, deadline = "", time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._process.stdout], [], [], deadline - time.monotonic())
            line = self._process.stdout.readline() if ready else ""
            if not line:
                break
            heard += line
            if "listening on" in line:
                self.base_url = line.split()[-1]
                return self
        self.stop()
        raise RuntimeError(f"the sandbox did not start: {heard or 'it said nothing'}")

    def stop(self) -> None:
        """End it and wait until it is gone; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # a Python that SIGTERM ends writes no coverage
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=5)
        if process.stdout is not None:
            process.stdout.close()

    def admin(self) -> SandboxAdmin:
        return SandboxAdmin(self.base_url, self.admin_token)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class InProcess(httpx.BaseTransport):
    """Asks a sandbox in this process, one request at a time and without a socket."""

    def __init__(self, app: SandboxApp) -> None:
        self._app = httpx.ASGITransport(app)
        self._runner = asyncio.Runner()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._ask(request))

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        answer = await self._app.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

    def close(self) -> None:
        self._runner.close()


@dataclass(frozen=True, slots=True)
class Minted:
    """Credentials made for a login without anyone clicking; some providers have neither refresh token nor expiry."""

    login: str
    access_token: str
    refresh_token: str | None
    expires_in: int | None
    grant: str | None
    item_id: str | None


class RaisedBarrier:
    """A point at which requests stand still until `release`."""

    def __init__(self, admin: SandboxAdmin, number: int) -> None:
        self._admin = admin
        self.number = number

    def wait_for_arrivals(self, count: int = 1, timeout: float = PATIENCE_S) -> int:
        """Wait until `count` requests have arrived.

        Raises:
            AssertionError: Fewer came within `timeout` seconds.
        """
        path = f"barriers/{self.number}?arrivals={count}&timeout={timeout}"
        arrived = int(self._admin.get(path, timeout=timeout + 5)["arrived"])
        assert arrived >= count, f"{arrived} of {count} requests reached the barrier within {timeout} s"
        return arrived

    def waiting(self) -> int:
        """How many requests stand here now."""
        return int(self._admin.get(f"barriers/{self.number}?arrivals=0")["waiting"])

    def release(self) -> None:
        """Let all go on, and hold nobody any more."""
        self._admin.delete(f"barriers/{self.number}")


class SandboxAdmin:
    """The admin side of a running sandbox."""

    def __init__(self, base_url: str, admin_token: str, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"x-sandbox-admin": admin_token}
        self._http = httpx.Client(
            base_url=f"{base_url}/admin/", headers=headers, timeout=PATIENCE_S, trust_env=False, transport=transport
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # The books

    def reset(self, seed: int = 1) -> list[str]:
        """Everything as at start, with this seed; the logins that then exist."""
        return list(self.post("reset", {"seed": seed})["logins"])

    def advance(self, steps: int = 1, logins: list[str] | None = None) -> None:
        self.post("advance", {"steps": steps, "logins": logins})

    def set_clock_offset(self, seconds: float) -> None:
        self.post("clock", {"offset_seconds": seconds})

    def create_logins(self, profile: str, count: int = 1, **spec: Any) -> list[str]:
        """New logins; `worker.sandbox.core.LoginSpec` says what `spec` takes (`transactions=200_000, warm=True`)."""
        return list(self.post("logins", {"profile": profile, "count": count, **spec})["logins"])

    def logins(self, profile: str = "") -> list[str]:
        return [row["login"] for row in self.get("logins") if profile in ("", row["profile"])]

    def books(self, login: str) -> dict[str, Any]:
        return dict(self.get(f"books/{login}"))

    def mutate(self, login: str, *mutations: dict[str, Any]) -> list[str]:
        """Apply changes in order and give their ids; `worker.sandbox.books.Mutation` describes one."""
        return list(self.post(f"books/{login}", list(mutations))["ids"])

    def add_transaction(self, login: str, amount: str, **more: Any) -> str:
        return self.mutate(login, {"op": "add", "amount": amount, **more})[0]

    def modify_transaction(self, login: str, transaction_id: str, **changes: Any) -> None:
        self.mutate(login, {"op": "modify", "id": transaction_id, **changes})

    def remove_transaction(self, login: str, transaction_id: str) -> None:
        self.mutate(login, {"op": "remove", "id": transaction_id})

    def post_transaction(self, login: str, transaction_id: str, **more: Any) -> str:
        """Turn a pending row into a posted one; the posted one's id."""
        return self.mutate(login, {"op": "post", "id": transaction_id, **more})[0]

    def serve_verbatim(self, login: str, record: str, *, target: str = "transaction", account: str = "") -> None:
        """Serve a record, as JSON text, that no honest provider would."""
        self.mutate(login, {"op": "verbatim", "record": record, "target": target, "account": account})

    def served(self) -> dict[str, dict[str, int]]:
        return dict(self.get("served"))

    # Credentials

    def mint(self, *logins: str, profile: str = "") -> list[Minted]:
        """New grants for the named logins, or for all of a profile."""
        rows = self.post("mint", {"logins": list(logins), "profile": profile})
        optional = ("refresh_token", "expires_in", "grant", "item_id")
        return [Minted(row["login"], row["access_token"], *(row.get(name) for name in optional)) for row in rows]

    def revoke(self, *logins: str) -> None:
        self.post("revoke", {"logins": list(logins)})

    def expire_access_tokens(self, *logins: str) -> None:
        self.post("expire-access", {"logins": list(logins)})

    def link(self, login: str, **asked: str) -> dict[str, str]:
        """What the login's owner hands over, by the names of the link form's fields.

        Args:
            login: whose.
            asked: what the application asked for, for example `state` and `redirect_uri`.
        """
        return dict(self.post(f"link/{login}", asked))

    def set_policy(self, profile: str, **policy: Any) -> None:
        """Members of `worker.sandbox.grants.Policy`."""
        self.post(f"policy/{profile}", policy)

    def break_login(self, login: str, error_code: str = "ITEM_LOGIN_REQUIRED") -> None:
        """Let a login answer with this error code until it is mended."""
        self.post(f"logins/{login}", {"broken": error_code})

    def mend_login(self, login: str) -> None:
        self.post(f"logins/{login}", {"broken": None})

    def demand_restarts(self, login: str, times: int) -> None:
        """Let the next pages after a loop's first one demand a restart of the pagination."""
        self.post(f"logins/{login}", {"forced_restarts": times})

    def hold_back_data(self, login: str, calls: int) -> None:
        """Answer "not ready" to the next feed requests."""
        self.post(f"logins/{login}", {"not_ready_calls": calls})

    # Hooks

    def deliver_hooks(self, **manner: Any) -> None:
        """How hooks are delivered from now on: members of `worker.sandbox.hooks.Manner`."""
        self.post("hooks", manner)

    def send_hooks(self, login: str, event: str = "changed", count: int = 1) -> int:
        """Send hooks about a login; how many the provider has sent."""
        return int(self.post(f"hooks/{login}", {"event": event, "count": count})["sent"])

    def want_hooks(self, login: str, address: str) -> None:
        """Hooks about this login go to this address, as its application would ask for it."""
        self.post(f"hooks/{login}", {"count": 0, "address": address})

    def hooks(self) -> list[dict[str, Any]]:
        """What became of the hooks, oldest first."""
        return list(self.get("hooks"))

    def rotate_hook_key(self, profile: str) -> None:
        self.post(f"hooks/rotate/{profile}", {})

    # Misbehaviour

    def inject(self, do: str, **fault: Any) -> int:
        """Arm a fault (`worker.sandbox.faults.Fault`); its number."""
        return int(self.post("faults", {"do": do, **fault})["number"])

    def faults(self) -> list[dict[str, Any]]:
        return list(self.get("faults"))

    def clear_faults(self) -> None:
        self.delete("faults")

    def set_quotas(self, *quotas: dict[str, Any]) -> None:
        self.post("quotas", list(quotas))

    def raise_barrier(self, point: str, **spec: Any) -> RaisedBarrier:
        return RaisedBarrier(self, int(self.post("barriers", {"point": point, **spec})["number"]))

    @contextlib.contextmanager
    def paused_before_rotation(self, **spec: Any) -> Iterator[RaisedBarrier]:
        """The next refresh stands still before the provider has done anything."""
        with self.paused("before_rotation", **spec) as barrier:
            yield barrier

    @contextlib.contextmanager
    def paused_after_rotation(self, **spec: Any) -> Iterator[RaisedBarrier]:
        """The next refresh stands still when the provider has rotated and nothing is sent."""
        with self.paused("after_rotation", **spec) as barrier:
            yield barrier

    @contextlib.contextmanager
    def paused_in_mid_body(self, **spec: Any) -> Iterator[RaisedBarrier]:
        """The next answer stands still when half of its body is sent."""
        with self.paused("mid_body", **spec) as barrier:
            yield barrier

    @contextlib.contextmanager
    def paused(self, point: str, **spec: Any) -> Iterator[RaisedBarrier]:
        """The next request stands still at this point (see `worker.sandbox.barriers`), at most until the block ends."""
        barrier = self.raise_barrier(point, **spec)
        try:
            yield barrier
        finally:
            barrier.release()

    # What was asked

    def log(self, **query: str | int) -> list[dict[str, Any]]:
        """Requests, oldest first; `kind`, `login`, `path` and `after` (a number) narrow them."""
        return list(self.get("log", params=query))

    def refreshes(self, login: str = "") -> list[dict[str, Any]]:
        return self.log(kind="refresh", login=login)

    def clear_log(self) -> None:
        self.delete("log")

    def overlapping_refreshes(self) -> list[dict[str, Any]]:
        return list(self.get("log/overlaps"))

    def tokens_presented_again(self) -> dict[str, dict[str, int]]:
        """Per grant, the digests of refresh tokens presented more than once, and how often."""
        return dict(self.get("log/reuse"))

    # The wire

    def get(self, path: str, *, params: dict[str, Any] | None = None, timeout: float = PATIENCE_S) -> Any:
        return _answer(
            self._http.get(path, params=params, timeout=timeout) if params else self._http.get(path, timeout=timeout)
        )

    def post(self, path: str, body: Any) -> Any:
        return _answer(self._http.post(path, json=body))

    def delete(self, path: str) -> Any:
        return _answer(self._http.delete(path))


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        raise AssertionError(f"sandbox admin {response.request.url.path}: {response.status_code} {response.text}")
    return response.json()
