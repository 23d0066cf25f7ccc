"""`dashtam api-keys`."""

from __future__ import annotations

import pytest

from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from worker.errors import NotAuthenticated
from worker.runtime import Runtime
from worker.services.access import keys


def test_a_key_is_made_listed_by_its_prefix_and_revoked(dashtam: Dashtam, runtime: Runtime) -> None:
    made = json_of(
        dashtam(
            *("api-keys", "create", "--name", "Ada's app", "--user", "ada@example.org", "--create-user"),
            *("--scope", "read", "--scope", "link", "--json"),
        )
    )
    prefix = made["api_key"]["prefix"]
    listed = json_of(dashtam("api-keys", "list", "--user", "ada@example.org", "--json"))
    shown = dashtam("api-keys", "list").output
    who = runtime.run(keys.authenticate(runtime, made["key"]))
    revoked = json_of(dashtam("api-keys", "revoke", prefix, "--json"))

    assert [row["prefix"] for row in listed] == [prefix]
    assert listed[0]["scopes"] == ["read", "link"]
    assert prefix in shown
    assert made["key"][-43:] not in shown
    assert str(who.user_id) == listed[0]["user_id"]
    assert revoked["changed"] is True
    assert json_of(dashtam("api-keys", "list", "--json")) == []
    with pytest.raises(NotAuthenticated):
        runtime.run(keys.authenticate(runtime, made["key"]))


@pytest.mark.deep
def test_a_key_without_a_user_is_an_operators_and_may_read(dashtam: Dashtam, runtime: Runtime) -> None:
    key = dashtam("api-keys", "create", "--name", "operations", "--days", "1").stdout.strip()

    who = runtime.run(keys.authenticate(runtime, key))

    assert (who.user_id, who.scopes) == (None, {"read"})


@pytest.mark.deep
@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--name", "x", "--scope", "everything"),
        ("create", "--name", ""),
        ("create", "--name", "x", "--user", "nobody@example.org"),
        ("revoke", "00000000"),
    ],
)
def test_what_means_nothing_is_refused_and_makes_no_key(dashtam: Dashtam, arguments: tuple[str, ...]) -> None:
    assert dashtam("api-keys", *arguments).exit_code == 2
    assert json_of(dashtam("api-keys", "list", "--json")) == []
