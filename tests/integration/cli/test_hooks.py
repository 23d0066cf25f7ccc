"""`dashtam hooks`: add, list, test, deliveries, replay, rotate, resume, remove."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from tests.support.fixtures import MakeRuntime
from tests.support.webhook_receiver import Receiver, webhook_receiver
from worker.crud.outbox import events
from worker.runtime import Runtime, use_runtime
from worker.services.outbox import sending

NOBODY = "01a2bec5-0000-7000-8000-000000000000"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with webhook_receiver() as made:
        yield made


@pytest.fixture
def here(make_runtime: MakeRuntime) -> Iterator[Runtime]:
    """A runtime that may send hooks to this machine."""
    with use_runtime(make_runtime(outbox_networks="127.0.0.0/8")) as runtime:
        yield runtime


def _send(runtime: Runtime) -> int:
    with runtime.transaction() as session:
        session.connection().exec_driver_sql("UPDATE outbox SET xid = 0")  # other tests have transactions open
    return runtime.run(sending.send_due(runtime))


def test_hook_is_added_tested_rotated_and_removed(dashtam: Dashtam, here: Runtime, receiver: Receiver) -> None:
    made = json_of(dashtam("hooks", "add", receiver.url, "--event", "integration.recovered", "--json"))
    hook, secret = made["hook"]["id"], made["secret"]
    listed = dashtam("hooks", "list", "--json")
    assert json_of(listed)[0]["url"] == receiver.url
    assert secret not in listed.output + dashtam("hooks", "list").output

    untold = dashtam("hooks", "test", hook[:13], "--wait", "0")
    assert untold.exit_code == 3
    assert "no worker has sent the test within 0 s" in " ".join(untold.output.split())
    assert _send(here) == 1
    got = receiver.received[-1]
    assert Webhook(secret).verify(got.body, got.headers)["type"] == "hook.test"
    (delivery,) = json_of(dashtam("hooks", "deliveries", hook, "--state", "received", "--json"))
    assert delivery["event_id"] == got.headers["webhook-id"]

    newer = json_of(dashtam("hooks", "rotate", hook, "--json"))["secret"]
    assert dashtam("hooks", "replay", hook, "--event", delivery["event_id"]).exit_code == 0
    assert _send(here) == 1
    got = receiver.received[-1]
    assert got.headers["webhook-id"] == delivery["event_id"]
    for valid in (secret, newer):
        Webhook(valid).verify(got.body, got.headers)

    assert json_of(dashtam("hooks", "remove", hook, "--json"))["removed"] is True
    assert json_of(dashtam("hooks", "list", "--json")) == []


@pytest.mark.deep
def test_receiver_that_ended_a_hook_is_sent_to_again_when_it_is_resumed(
    dashtam: Dashtam, here: Runtime, receiver: Receiver
) -> None:
    hook = json_of(dashtam("hooks", "add", receiver.url, "--json"))["hook"]["id"]
    receiver.answers = [410]
    with here.transaction() as session:
        events.integration_recovered(session, provider_key="schwab")
    assert _send(here) == 0

    refused = dashtam("hooks", "replay", hook)
    assert refused.exit_code == 3
    assert f"dashtam hooks resume {hook}" in " ".join(refused.output.split())
    found = " ".join(dashtam("doctor", "--json").output.split())
    assert "given up" in found
    assert f"dashtam hooks replay {hook}" in found
    assert json_of(dashtam("hooks", "resume", hook, "--json"))["changed"] is True
    assert json_of(dashtam("hooks", "replay", hook, "--json"))["deliveries"] == 1
    assert _send(here) == 1


@pytest.mark.deep
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("add", "file:///etc/passwd"), "must have the form https://host/path"),
        (("add", "https://ada:secret@app.example.org/"), "must not have a user name"),
        (("add", "http://10.0.0.1/"), "must begin with https://"),
        (("add", "https://169.254.169.254/"), "private network"),
        (("add", "https://93.184.215.14/", "--event", "everything"), "no event is named 'everything'"),
        (("add", "https://93.184.215.14/", "--user", "nobody@example.org"), "no user has the e-mail address"),
        (("test", NOBODY), "no hook has an id that begins so"),
        (("replay", "x", "--event", "y"), "is no id"),
        (("deliveries", "x", "--state", "lost"), "none of waiting, parked, received"),
        (("remove", ""), "no hook has an id"),
    ],
)
def test_what_means_nothing_is_refused_and_changes_nothing(
    dashtam: Dashtam, runtime: Runtime, arguments: tuple[str, ...], told: str
) -> None:
    refused = dashtam("hooks", *arguments)

    assert refused.exit_code == 2
    assert told in " ".join(refused.output.replace("│", " ").split())
    assert "secret@" not in refused.output
    rows: list[Any] = json_of(dashtam("hooks", "list", "--json"))
    assert rows == []
