"""Crash rounds shared by the short tests and the long ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from tests.factories import make_linked_provider
from tests.support import refreshers
from tests.support.providers import REFRESHED_KEY
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.runtime import Runtime
from worker.services.refresh import protocol

PLACES = ("before_send", "after_rotation", "after_answer", "before_commit", "after_commit")
"""Where a worker is killed; `after_rotation` at the provider's barrier, the others at failpoints of its own."""


@dataclass
class Scene:
    """A sandbox login linked here, and processes that refresh it."""

    runtime: Runtime
    engine: Engine
    sandbox: SandboxAdmin
    environment: Mapping[str, str]
    key: str = REFRESHED_KEY

    def link(self) -> tuple[UUID, str]:
        """Provider and login; the access token has run out."""
        login = self.sandbox.create_logins(self.key, 1, accounts=1, transactions=0)[0]
        minted = self.sandbox.mint(login)[0]
        with self.runtime.transaction() as session:
            provider = make_linked_provider(
                session,
                self.runtime.encryption,
                provider_key=self.key,
                access_token=minted.access_token,
                refresh_token=minted.refresh_token,
                issued_at=datetime.now(UTC) - timedelta(hours=1),
            )
            return provider.id, login

    def kill_at(self, place: str, id_: UUID) -> None:
        """Starts a refresh and kills it there; returns when it is dead and its lease is over."""
        if place == "after_rotation":
            with self.sandbox.paused_after_rotation() as barrier:
                process = refreshers.start(self.environment, id_)
                barrier.wait_for_arrivals()
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join(10)
        else:
            process = refreshers.start({**self.environment, "FAILPOINTS": f"{place}=kill"}, id_)
            process.join(20)
        assert process.exitcode == -signal.SIGKILL, f"the process ended with {process.exitcode}"
        self.end_leases()

    def end_leases(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE provider_tokens SET lease_until = now() - interval '1 s'"))

    def refresh(self, id_: UUID, **options: Any) -> str:
        summary = self.runtime.run(protocol.refresh_providers(self.runtime, [id_], **options))
        return str(summary.results[id_].outcome)

    def provider(self, id_: UUID) -> dict[str, Any]:
        statement = text(
            "SELECT p.*, t.generation FROM providers p JOIN provider_tokens t ON t.provider_id = p.id WHERE p.id = :id"
        )
        with self.engine.begin() as connection:
            return dict(connection.execute(statement, {"id": id_}).mappings().one())

    def settle(self, id_: UUID) -> list[str]:
        """Refreshes until nothing more happens, at most five times."""
        outcomes = []
        for _ in range(5):
            with self.engine.begin() as connection:  # the waits after failures have passed
                connection.execute(text("UPDATE providers SET refresh_not_before = NULL"))
            outcomes.append(self.refresh(id_))
            if outcomes[-1] in ("fresh", "inactive"):
                break
        return outcomes


def _killed_once(scene: Scene, place: str, *, reuse: str) -> tuple[UUID, dict[str, Any], list[str], list[str]]:
    """A worker is killed at `place`, and others go on: the provider, its row, what happened, the tokens presented."""
    scene.sandbox.set_policy(scene.key, reuse=reuse)
    id_, login = scene.link()
    scene.kill_at(place, id_)
    outcomes = scene.settle(id_)
    return id_, scene.provider(id_), outcomes, [entry["token"] for entry in scene.sandbox.refreshes(login)]


def survive_a_kill(scene: Scene, place: str) -> None:
    """A provider that grants a retry of the previous token: nothing is lost, wherever the worker dies."""
    id_, row, outcomes, presented = _killed_once(scene, place, reuse="grace")

    assert (row["status"], row["generation"]) == ("active", 2), outcomes
    assert outcomes[-1] == "fresh"
    assert len(presented) == (2 if place in ("after_rotation", "after_answer", "before_commit") else 1)
    assert len(set(presented)) == 1
    # What is stored is what the provider takes next.
    assert scene.refresh(id_, force=True) == "refreshed"


def give_up_honestly(scene: Scene, place: str) -> None:
    """A provider that forgives nothing: the user is asked, once, and nothing is presented a third time."""
    _, row, outcomes, presented = _killed_once(scene, place, reuse="strict")

    if place in ("before_send", "after_commit"):
        assert (row["status"], len(presented)) == ("active", 1), outcomes
    else:
        assert (row["status"], row["status_reason"]) == ("needs_reauth", "lost_rotation"), outcomes
        assert len(presented) == 2


def one_call_per_generation(scene: Scene, *, rounds: int, wait: Callable[..., Any] = wait_for) -> None:
    """Eight processes that all want the next token at once."""
    scene.sandbox.set_policy(scene.key, reuse="strict")
    id_, login = scene.link()

    found = refreshers.race(scene.environment, id_, processes=8, rounds=rounds, seconds=120)

    for number, round_ in enumerate(found):
        assert round_ == [(number + 2, "")] * 8
    assert len(scene.sandbox.refreshes(login)) == rounds
    assert scene.sandbox.overlapping_refreshes() == []
    assert scene.sandbox.tokens_presented_again() == {}
    assert scene.provider(id_)["status"] == "active"
