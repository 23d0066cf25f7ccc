"""The sender is killed at each point of a delivery: nothing is lost, and only an unknown outcome is repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.outbox.conftest import Outbox
from tests.support.environment import ROOT
from tests.support.fixtures import MakeRuntime
from tests.support.webhook_receiver import Receiver, webhook_receiver
from worker.crud.outbox import events
from worker.services.outbox import sending, subscriptions

pytestmark = pytest.mark.deep

SEND = """
from worker.runtime import get_runtime
from worker.services.outbox import sending

runtime = get_runtime()
runtime.run(sending.send_due(runtime))
"""
HERE = "127.0.0.0/8"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with webhook_receiver() as made:
        yield made


@pytest.mark.parametrize(("place", "deliveries"), [("hook_claimed", 1), ("hook_sent", 2), ("hook_recorded", 1)])
def test_killed_sender_loses_nothing_and_only_an_unknown_outcome_is_repeated(
    make_runtime: MakeRuntime, process_environment: dict[str, str], receiver: Receiver, place: str, deliveries: int
) -> None:
    outbox = Outbox(make_runtime(outbox_networks=HERE))
    adding = subscriptions.add(outbox.runtime, url=receiver.url, events=[], user_id=None, actor="operator:test")
    outbox.runtime.run(adding)
    with outbox.runtime.transaction() as session:
        events.integration_recovered(session, provider_key="schwab")
    outbox.execute("UPDATE outbox SET xid = 0")

    killed = subprocess.run(
        [sys.executable, "-c", SEND],
        cwd=ROOT,
        env=os.environ | process_environment | {"FAILPOINTS": f"{place}=kill", "OUTBOX_NETWORKS": HERE},
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    outbox.runtime.run(sending.send_due(outbox.runtime))
    assert len(receiver.received) == min(deliveries, 1) - (place == "hook_claimed"), "the claim has not ended yet"
    outbox.make_due()
    outbox.runtime.run(sending.send_due(outbox.runtime))

    assert len(receiver.received) == deliveries
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert outbox.rows("sent_at IS NOT NULL, due_at") == [(True, None)]
