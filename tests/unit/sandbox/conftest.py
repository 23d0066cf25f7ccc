"""Sandboxes without a server: profiles are asked directly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import time_machine

from tests.unit.sandbox.asking import PROFILES
from worker.sandbox.core import Sandbox


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    with time_machine.travel("2026-03-10T15:00:00Z", tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def sandbox(clock: time_machine.Coordinates) -> Sandbox:
    return Sandbox(1, PROFILES, {"schwab": 2, "plaid": 2}, {})
