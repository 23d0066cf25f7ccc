"""Faults: rules that say which requests go wrong, and how."""

from __future__ import annotations

import base64
import random
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from worker.sandbox.wire import JSON_HEADER, Answer, Request

Action = Literal[
    "delay", "answer", "error", "rate_limit", "redirect", "reset", "cut", "hang", "drip", "truncate", "edit", "pad"
]


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One rule.

    Attributes:
        profile, path, login, kind: Which requests match: `path` is a shell pattern on the path below the profile,
            `kind` is refresh, exchange, data or `*`.
        skip: How many matching requests pass first.
        times: How often the rule applies; None for always.
        probability: Share of the matching requests to which the rule applies; chosen from the sandbox's seed.
        latency_ms: Delay before anything else; with `delay`, this is the only action.
        do: `answer` sends status, headers and body; `error` sends the profile's error with that name; `rate_limit`
            sends the profile's 429 with `retry_after` (sent unchanged, but `+90` becomes an HTTP date 90 s in the
            future); `redirect` leads to `location`; `reset` cuts the connection before anything is sent; `cut` cuts it
            in the middle of the body; `hang` never answers; `drip` sends `bytes_per_second`; `truncate` sends only the
            first `bytes`, as a complete answer; `pad` fills the body with spaces up to `bytes`; `edit` changes the JSON
            answer.
        when: `before`: `answer`, `error`, `rate_limit`, `redirect`, `reset` and `hang` replace the provider's work.
            `after`: they come after the work is done (the token was rotated, but the client does not get it).
        set: For `edit`: top-level keys and their new values as JSON text, sent unchanged, so that `NaN` and `1e400` are
            possible; `$request.cursor` repeats the request's own field.
        drop: For `edit`: top-level keys to leave out.
        append: For `edit`: the name of a list (empty if the answer is an array) and records, as JSON text, to add to
            it.
        append_base64: The same for records that are not valid text.
        body: The body as text. For bytes that are not valid text, use `body_base64`.
    """

    profile: str = "*"
    path: str = "*"
    login: str = "*"
    kind: str = "*"
    skip: int = 0
    times: int | None = 1
    probability: float = 1.0
    latency_ms: float = 0.0
    do: Action = "delay"
    when: Literal["before", "after"] = "before"
    status: int = 500
    headers: dict[str, str] = {}
    body: str = ""
    body_base64: str = ""
    error: str = ""
    retry_after: str = ""
    location: str = ""
    bytes_per_second: float = 1.0
    bytes: int = 0
    set: dict[str, str] = {}
    drop: list[str] = []
    append: dict[str, list[str]] = {}
    append_base64: dict[str, list[str]] = {}

    def matches(self, profile: str, path: str, login: str | None, kind: str) -> bool:
        """Whether this rule matches a request."""
        return (
            self.profile in ("*", profile)
            and self.login in ("*", login)
            and self.kind in ("*", kind)
            and fnmatchcase(path, self.path)
        )


class ArmedFault(msgspec.Struct):
    """A rule, with the number of requests that matched it (`seen`) and to which it was applied (`hits`)."""

    number: int
    fault: Fault
    seen: int = 0
    hits: int = 0


class Faults:
    """The active rules. Each request gets all delays that match it, and the first other action."""

    def __init__(self, seed: int) -> None:
        self._armed: dict[int, ArmedFault] = {}
        self._number = 0
        self._random = random.Random(f"faults-{seed}")  # noqa: S311 - the same seed must give the same random numbers

    def __bool__(self) -> bool:
        return bool(self._armed)

    def arm(self, fault: Fault) -> ArmedFault:
        """Adds a rule after the existing ones."""
        self._number += 1
        armed = self._armed[self._number] = ArmedFault(self._number, fault)
        return armed

    def all(self) -> list[ArmedFault]:
        """The active rules, oldest first."""
        return list(self._armed.values())

    def disarm(self, number: int | None = None) -> None:
        """Removes one rule, or all of them."""
        if number is None:
            self._armed.clear()
        else:
            self._armed.pop(number, None)

    def strike(self, profile: str, path: str, login: str | None, kind: str) -> tuple[float, Fault | None]:
        """The delay in milliseconds and the action for this request."""
        delay, action = 0.0, None
        for armed in self._armed.values():
            fault = armed.fault
            if not fault.matches(profile, path, login, kind) or (action is not None and fault.do != "delay"):
                continue
            armed.seen += 1
            if armed.seen <= fault.skip or (fault.times is not None and armed.hits >= fault.times):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            armed.hits += 1
            delay += fault.latency_ms
            if fault.do != "delay":
                action = fault
        return delay, action


def literal_answer(fault: Fault) -> Answer:
    """The answer that an `answer` or `redirect` rule contains."""
    body = base64.b64decode(fault.body_base64) if fault.body_base64 else fault.body.encode()
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fault.headers.items()]
    if fault.do == "redirect":
        return Answer(
            fault.status if 300 <= fault.status < 400 else 302, body, [(b"location", fault.location.encode())]
        )
    if not any(name == b"content-type" for name, _ in headers):
        headers.append(JSON_HEADER)
    return Answer(fault.status, body, headers)


def reshape(fault: Fault, answer: Answer, request: Request) -> Answer:
    """The answer after `truncate`, `pad` or `edit`."""
    body = answer.body
    if fault.do == "truncate":
        body = body[: fault.bytes or len(body) // 2]
    elif fault.do == "pad":
        body = body + b" " * max(0, fault.bytes - len(body))
    elif fault.do == "edit":
        body = _edited(fault, body, request)
    return Answer(answer.status, body, answer.headers, answer.rotated)


def _edited(fault: Fault, body: bytes, request: Request) -> bytes:
    extra = {name: [record.encode() for record in records] for name, records in fault.append.items()}
    for name, records in fault.append_base64.items():
        extra.setdefault(name, []).extend(base64.b64decode(record) for record in records)
    if body.lstrip().startswith(b"["):
        return _extended(body, extra.get("", []))
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    pieces = {name: bytes(value) for name, value in members.items() if name not in fault.drop}
    for name, text in fault.set.items():
        if text.startswith("$request."):
            pieces[name] = msgspec.json.encode(request.json().get(text.removeprefix("$request.")))
        else:
            pieces[name] = text.encode()
    for name, added in extra.items():
        pieces[name] = _extended(pieces.get(name, b"[]"), added)
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + piece for name, piece in pieces.items()) + b"}"


def _extended(array: bytes, records: list[bytes]) -> bytes:
    inner = array.strip()[1:-1].strip()
    return b"[" + b",".join(([inner] if inner else []) + records) + b"]"
