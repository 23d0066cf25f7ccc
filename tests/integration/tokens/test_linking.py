from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Engine, text

from tests.support.sandbox import SandboxAdmin
from worker.crud import create_user
from worker.runtime import Runtime
from worker.services import connect, tokens
from worker.integrations.base import Caller

pytestmark = pytest.mark.integration


def test_linked_login_is_refreshed(runtime: Runtime, sandbox: SandboxAdmin, engine: Engine) -> None:
    with runtime.transaction() as session:
        user = create_user(session)
    login = sandbox.create_logins("schwab", 1)[0]
    url = runtime.run(connect.begin_link(runtime, "schwab", user.id, "Main"))
    state = parse_qs(urlsplit(url).query)["state"][0]

    provider_id = runtime.run(connect.complete_link(runtime, sandbox.schwab_callback_url(login, state)))
    summary = runtime.run(tokens.refresh_providers(runtime, [provider_id], force=True))

    assert summary.counts == {"refreshed": 1}
    again = runtime.run(tokens.refresh_providers(runtime, [provider_id]))
    assert again.counts == {"fresh": 1}
    token = runtime.run(tokens.access_token(runtime, provider_id, caller=Caller()))
    assert token.generation == 2
    with engine.begin() as c:
        for t in ("providers", "token_refreshes", "provider_audit_logs", "provider_tokens"):
            print(c.execute(text(f"select * from {t}")).mappings().all())
