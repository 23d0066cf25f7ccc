"""Barriers: named points at which a request waits until a test releases it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import msgspec

Point = Literal["before_rotation", "after_rotation", "before_answer", "mid_body"]


class BarrierSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which requests to hold, and at which point.

    Attributes:
        point: `before_rotation` and `after_rotation` (the token is rotated, nothing is sent) hold only refreshes;
            `before_answer` and `mid_body` hold every request that `path` matches.
        path: A part of the path below the profile.
        times: How many requests are held; None holds all until the barrier is released.
    """

    point: Point
    profile: str = ""
    login: str = ""
    path: str = ""
    times: int | None = 1


class Barrier:
    """One active barrier, with the requests that have arrived at it."""

    def __init__(self, number: int, spec: BarrierSpec) -> None:
        self.number = number
        self.spec = spec
        self.arrived = 0
        self.waiting = 0
        self.open = asyncio.Event()
        self.changed = asyncio.Condition()

    def takes(self, point: Point, profile: str, login: str | None, path: str) -> bool:
        """Whether a request that comes to this point must wait here."""
        spec = self.spec
        return (
            spec.point == point
            and not self.open.is_set()
            and (spec.times is None or self.arrived < spec.times)
            and spec.profile in ("", profile)
            and spec.login in ("", login)
            and spec.path in path
        )

    async def stand(self) -> None:
        """Waits here until the barrier is released."""
        self.arrived += 1
        self.waiting += 1
        async with self.changed:
            self.changed.notify_all()
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1

    async def arrivals(self, count: int, seconds: float) -> int:
        """Waits until `count` requests have arrived or `seconds` are over. Returns how many have arrived."""
        async with self.changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.changed.wait_for(lambda: self.arrived >= count)
        return self.arrived


class Barriers:
    """The active barriers."""

    def __init__(self) -> None:
        self._barriers: dict[int, Barrier] = {}
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._barriers)

    def raise_(self, spec: BarrierSpec) -> Barrier:
        """Adds a barrier."""
        self._number += 1
        barrier = self._barriers[self._number] = Barrier(self._number, spec)
        return barrier

    def get(self, number: int) -> Barrier | None:
        """An active barrier, by its number; None if there is none."""
        return self._barriers.get(number)

    def at(self, point: Point, profile: str, login: str | None, path: str) -> Barrier | None:
        """The first barrier at which a request must wait, if any."""
        return next((b for b in self._barriers.values() if b.takes(point, profile, login, path)), None)

    def release(self, number: int) -> None:
        """Lets all requests that wait at one barrier continue, and removes it."""
        barrier = self._barriers.pop(number, None)
        if barrier is not None:
            barrier.open.set()

    def release_all(self) -> None:
        """Releases and removes every barrier."""
        for number in list(self._barriers):
            self.release(number)
