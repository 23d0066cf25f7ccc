"""`dashtam simplefin`."""

from __future__ import annotations

import base64

import pytest
from sqlalchemy.orm import Session

from tests.factories import make_account, make_provider, make_user
from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from worker.errors import NotPermitted
from worker.runtime import Runtime
from worker.services.simplefin import accesses


def test_an_access_is_made_claimed_listed_and_revoked(dashtam: Dashtam, runtime: Runtime, rows: Session) -> None:
    make_user(rows, email="ada@example.org")
    rows.commit()
    token = dashtam("simplefin", "create", "--user", "ada@example.org", "--name", "Actual").stdout.strip()
    secret = base64.b64decode(token).decode().rpartition("/")[2]
    (waiting,) = json_of(dashtam("simplefin", "list", "--user", "ada@example.org", "--json"))
    url = runtime.run(accesses.claim(runtime, secret, base_url="https://dashtam.example"))
    (claimed,) = json_of(dashtam("simplefin", "list", "--json"))
    shown = dashtam("simplefin", "list").output
    prefix = claimed["prefix"]
    revoked = json_of(dashtam("simplefin", "revoke", prefix, "--json"))
    again = dashtam("simplefin", "revoke", prefix)

    assert (waiting["name"], waiting["state"], claimed["state"]) == ("Actual", "unclaimed", "in use")
    password = url.split("@")[0].rpartition(":")[2]
    assert prefix in shown
    assert password not in shown
    assert (revoked["prefix"], revoked["changed"]) == (prefix, True)
    assert "as it was" in again.output
    assert json_of(dashtam("simplefin", "list", "--json")) == []
    assert [row["state"] for row in json_of(dashtam("simplefin", "list", "--ended", "--json"))] == ["revoked"]
    with pytest.raises(NotPermitted):
        runtime.run(accesses.authenticate(runtime, prefix, password))


@pytest.mark.deep
def test_the_token_names_the_public_address_when_there_is_one(
    dashtam: Dashtam, runtime: Runtime, rows: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user(rows, email="ada@example.org")
    rows.commit()
    monkeypatch.setattr(
        runtime, "settings", runtime.settings.model_copy(update={"web_public_url": "https://dashtam.example"})
    )

    made = json_of(dashtam("simplefin", "create", "--user", "ada@example.org", "--json"))

    address = base64.b64decode(made["setup_token"]).decode()
    assert address.startswith("https://dashtam.example/simplefin/claim/sfc_")


@pytest.mark.deep
def test_what_means_nothing_is_refused_and_makes_no_access(dashtam: Dashtam, rows: Session) -> None:
    ada = make_user(rows, email="ada@example.org")
    make_provider(rows, user=ada)
    strange = make_account(rows)
    rows.commit()

    for arguments in (
        ("create", "--user", "nobody@example.org"),
        ("create", "--user", "ada"),
        ("create", "--user", "ada@example.org", "--name", ""),
        ("create", "--user", "ada@example.org", "--name", "a\x1b[31mb"),
        ("create", "--user", "ada@example.org", "--account", str(strange.id)),
        ("create", "--user", "ada@example.org", "--account", "1234"),
        ("revoke", "00000000"),
    ):
        assert dashtam("simplefin", *arguments).exit_code == 2, arguments
    assert json_of(dashtam("simplefin", "list", "--ended", "--json")) == []
