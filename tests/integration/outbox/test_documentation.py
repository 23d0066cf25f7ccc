"""The receiver in docs/hooks.md works as it stands there."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

from tests.integration.outbox.conftest import Outbox
from tests.support.environment import ROOT
from tests.support.serving import serving
from worker.crud.outbox import events
from worker.integrations.receivers import Receivers
from worker.services.outbox import sending, subscriptions

NETWORKS = (ip_network("127.0.0.0/8"),)


def test_receiver_of_the_documentation_takes_genuine_events_and_refuses_others(outbox: Outbox) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/hooks.md").read_text(), re.DOTALL)
    stored: dict[str, Any] = {}
    given: dict[str, Any] = {"store_once": stored.setdefault}
    exec(compile(example, "docs/hooks.md", "exec"), given)  # noqa: S102 - our own documentation
    given["Receiver"].log_message = lambda *_: None
    server = given["serve"](0)

    async def send() -> int:
        receivers = Receivers(NETWORKS)
        try:
            return await sending.send_due(outbox.runtime, post=receivers)
        finally:
            await receivers.aclose()

    with serving(server):
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        receivers = Receivers(NETWORKS)
        adding = subscriptions.add(
            outbox.runtime, url=url, events=[], user_id=None, actor="operator:test", receivers=receivers
        )
        made = outbox.runtime.run(adding)
        given["SECRET"] = made.secret
        for _ in range(2):
            with outbox.runtime.transaction() as session:
                events.integration_recovered(session, provider_key="schwab")
            outbox.execute("UPDATE outbox SET xid = 0")
            received = outbox.runtime.run(send())
            given["SECRET"] = "whsec_" + "AAAA" * 11

    assert received == 0, "the second one was signed with another secret than the receiver's"
    assert [event["type"] for event in stored.values()] == ["integration.recovered"]
    assert outbox.rows("last_error")[-1] == ("it answered 401",)
