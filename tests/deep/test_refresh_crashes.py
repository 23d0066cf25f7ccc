"""The full length of what tests/integration/tokens/test_crashes.py shows in short."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from tests.integration.tokens.crashes import PLACES, Scene, give_up_honestly, one_call_per_generation, survive_a_kill
from tests.support.sandbox import SandboxAdmin
from worker.runtime import Runtime

ROUNDS = 20


@pytest.fixture
def scene(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, server_environment: Mapping[str, str]) -> Scene:
    return Scene(runtime, engine, sandbox, {**os.environ, **server_environment})


@pytest.fixture
def strict_scene(scene: Scene) -> Scene:
    """With a provider whose refresh tokens always work only once, and whose client uses PKCE."""
    return replace(scene, key="snaptrade")


@pytest.mark.release
@pytest.mark.parametrize("place", PLACES)
def test_single_use_tokens_end_usable_or_in_lost_rotation_wherever_a_worker_is_killed(
    strict_scene: Scene, place: str
) -> None:
    give_up_honestly(strict_scene, place)


@pytest.mark.release
def test_eight_processes_present_each_single_use_token_once(strict_scene: Scene) -> None:
    one_call_per_generation(strict_scene, rounds=20)


@pytest.mark.parametrize("place", PLACES)
def test_no_token_is_lost_in_twenty_kills_where_a_retry_is_granted(scene: Scene, place: str) -> None:
    for _ in range(ROUNDS):
        scene.sandbox.clear_log()
        survive_a_kill(scene, place)


@pytest.mark.parametrize("place", PLACES)
def test_twenty_kills_end_usable_or_in_lost_rotation_where_none_is(scene: Scene, place: str) -> None:
    for _ in range(ROUNDS):
        scene.sandbox.clear_log()
        give_up_honestly(scene, place)


@pytest.mark.long
def test_eight_processes_race_for_two_hundred_generations(scene: Scene) -> None:
    one_call_per_generation(scene, rounds=200)
