"""A thousand callbacks, a fifth of them replayed, forged or late: no link is lost, none is made twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from tests.integration.web.conftest import HOST, Sent, make_person
from tests.support.link_journey import MadeUp
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.link_kinds import OAUTH
from worker.models import LinkSession, LinkState, new_id
from worker.runtime import Runtime
from worker.tasks import send as broker
from worker.web.application import create_app

PARTS = 4
"""Each makes a quarter of the callbacks, so that several processes can share the work."""
GOOD, LATE, REPLAYED, FORGED = 200, 15, 19, 16
AT_ONCE = 16


class Consenting(MadeUp):
    """Linked by consent at an address; a code can be exchanged once."""

    redirect_uri = f"{HOST}/oauth/{MadeUp.key}/callback"  # type: ignore[assignment]

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        return f"https://provider.example/authorize?state={state}"

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        await asyncio.sleep(0)
        return await super().exchange(caller, form, now=now)


@dataclass(frozen=True)
class Callback:
    """One request of a browser: which state, which code, and the secret in the cookie."""

    state: str
    holder: str
    number: int

    async def send(self, asking: httpx.AsyncClient) -> int:
        cookie = "dashtam_link_" + hashlib.sha256(self.state.encode()).hexdigest()[:16]
        headers = {"Cookie": f"{cookie}={self.holder}"}
        query = f"code=code-{self.number}&state={self.state}"
        return (await asking.get(f"/oauth/{MadeUp.key}/callback?{query}", headers=headers)).status_code


def _begun(rows: Session, user_id: UUID, count: int, *, late: set[int]) -> list[Callback]:
    """Sessions whose browsers are at the provider, as `sessions.proceed` leaves them."""
    now = datetime.now(UTC)
    made = [Callback(f"state-{number}-{user_id}", f"holder-{number}", number) for number in range(count)]
    sessions, states = [], []
    for one in made:
        ends_at = now + timedelta(seconds=-1 if one.number in late else 600)
        owner = {"user_id": user_id, "provider_key": MadeUp.key, "alias": f"Login {one.number}"}
        session_id = new_id()
        sessions.append(
            owner
            | {"id": session_id, "token_hash": _hash(f"token-{one.state}"), "browser_hash": _hash(one.holder)}
            | {"asked_by": "tests", "created_by": "user:tests", "status": "open", "expires_at": ends_at}
        )
        states.append(
            owner
            | {"state_hash": _hash(one.state), "holder_hash": _hash(one.holder)}
            | {"session_id": session_id, "expires_at": now + timedelta(seconds=600)}
        )
    rows.execute(insert(LinkSession), sessions)
    rows.execute(insert(LinkState), states)
    rows.commit()
    return made


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


@pytest.mark.deep
@pytest.mark.parametrize("part", range(PARTS))
def test_thousand_callbacks_lose_no_link_and_make_none_twice(
    web_runtime: Runtime, sent: Sent, rows: Session, part: int
) -> None:
    user_id = make_person(web_runtime).user_id
    chance = random.Random(part)
    late = set(chance.sample(range(GOOD + LATE), LATE))
    right = _begun(rows, user_id, GOOD + LATE, late=late)
    good = [one for one in right if one.number not in late]
    replayed = chance.sample(good, REPLAYED)
    forged = [Callback(one.state, "x" * 43, one.number) for one in chance.sample(good, FORGED // 2)]
    forged += [Callback(f"{one.state}x", one.holder, one.number) for one in chance.sample(good, FORGED // 2)]
    callbacks = [*right, *replayed, *forged]
    chance.shuffle(callbacks)
    integration = web_runtime.integrations[MadeUp.key] = Consenting(OAUTH)

    async def send_all() -> Counter[int]:
        app = create_app(web_runtime, send=sent, transport=broker)
        turns = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST) as asking:

            async def send(one: Callback) -> int:
                async with turns:
                    return await one.send(asking)

            statuses = Counter(await asyncio.gather(*map(send, callbacks)))
        await app.state.rates.aclose()
        return statuses

    with capture_logs():  # a thousand lines for people would take a quarter of the time
        statuses = asyncio.run(send_all())
    del web_runtime.integrations[MadeUp.key]

    expected = {f"Login {one.number}" for one in good}
    linked = "SELECT alias, count(*) FROM providers WHERE user_id = :user AND status = 'active' GROUP BY alias"
    ended = (
        "SELECT alias, count(linked_id) FROM link_sessions WHERE user_id = :user AND status = 'linked' GROUP BY alias"
    )
    for statement in (linked, ended):
        found = rows.execute(text(statement), {"user": user_id}).all()
        assert {row.alias: row.count for row in found} == dict.fromkeys(expected, 1), statement
    exchanged = Counter(form["code"] for form in integration.exchanged)
    assert exchanged == Counter(f"code-{one.number}" for one in good)
    assert len(callbacks) * PARTS == 1000
    assert statuses.keys() <= {200, 400}
    assert statuses[200] >= len(good)
