"""Existing programs that speak SimpleFIN read from our server, over TLS with the authority of ops/make_secrets.py.

One library is a package of the development environment. The others are fetched from their registries by the tests that
run before a release: they want a newer Python, bring too much, or are written for Node.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.orm import Session

from ops import make_secrets
from tests.factories import make_account, make_provider, make_transaction
from tests.integration.web.conftest import Sent, make_person, runtime_run, web_database, web_runtime
from tests.support.web_server import listening
from worker.models import Balance, User
from worker.runtime import Runtime
from worker.services.simplefin import accesses
from worker.tasks import send as broker
from worker.web.application import create_app

pytestmark = pytest.mark.deep

__all__ = ["web_database", "web_runtime"]  # fixtures

DAY = datetime.now(UTC).date() - timedelta(days=2)
"""The day of the newest rows; far enough from midnight and from the end of a month in any time zone."""
SECONDS = 120


class Served:
    """Our server on TLS, and a user with two accounts; the second is of a login that needs its user."""

    def __init__(self, runtime: Runtime, origin: str, authority: Path) -> None:
        self.runtime, self.origin, self.authority = runtime, origin, authority
        self.user_id = make_person(runtime).user_id
        with Session(runtime.engine) as rows, rows.begin():
            self.accounts = [
                _login(rows, self.user_id, *one) for one in (("My bank", "active"), ("Old bank", "needs_reauth"))
            ]

    def token(self) -> str:
        made = runtime_run(
            self.runtime,
            accesses.create(
                self.runtime,
                user_id=self.user_id,
                name="a client",
                account_ids=(),
                actor="operator:tests",
                base_url=self.origin,
            ),
        )
        return str(made.setup_token)

    def run(self, *command: str | Path, **environment: str) -> Any:
        """What a program prints, read as JSON. It trusts the authority, and gets a setup token."""
        trust = {"SSL_CERT_FILE": str(self.authority), "NODE_EXTRA_CA_CERTS": str(self.authority)}
        given = {
            "PATH": os.environ["PATH"],
            "SETUP_TOKEN": self.token(),
            "TZ": "America/New_York",
            **trust,
            **environment,
        }
        ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])


def _login(rows: Session, user_id: UUID, alias: str, status: str) -> str:
    login = make_provider(
        rows, user=rows.get_one(User, user_id), alias=alias, status=status, synced_at=datetime.now(UTC)
    )
    account = make_account(rows, provider=login, name="Checking", mask="1234")
    rows.add(
        Balance(
            account_id=account.id,
            current=Decimal("100.5"),
            currency="USD",
            source="stated",
            content_hash=b"x",
            taken_at=datetime.now(UTC),
        )
    )
    for days, amount in enumerate(("-12.3", "1000", "-0.07")):
        day = DAY - timedelta(days=days)
        make_transaction(rows, account=account, posted_date=day, amount=Decimal(amount), description=f"Row {days}")
    make_transaction(rows, account=account, status="pending", posted_date=DAY, amount=Decimal(-5))
    return str(account.id)


@pytest.fixture(scope="module")
def served(web_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("secrets")
    make_secrets.make(directory)
    app = create_app(web_runtime, send=Sent(), transport=broker)
    with listening(app, certificate=directory / "web_certificate", key=directory / "web_key") as origin:
        yield Served(web_runtime, origin, directory / "tls_ca")


def test_a_claim_over_tls_with_our_authority_gives_an_access_url_with_https(served: Served) -> None:
    trust = ssl.create_default_context(cafile=str(served.authority))
    with httpx.Client(verify=trust) as client:
        claim = accesses.base64.b64decode(served.token()).decode()
        access_url = client.post(claim).text
        answer = client.get(f"{access_url}/accounts", params={"pending": "1"}).json()

    assert claim.startswith(f"{served.origin}/simplefin/claim/")
    assert access_url.startswith("https://")
    assert [one["id"] for one in answer["accounts"]] == served.accounts
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{served.origin}/simplefin/info")


SIMPLEFIN4PY = """
import asyncio, json, os
from simplefin4py import SimpleFin
from simplefin4py.exceptions import SimpleFinClaimError

async def main():
    token = os.environ["SETUP_TOKEN"]
    data = await SimpleFin(await SimpleFin.claim_setup_token(token)).fetch_data()
    try:
        await SimpleFin.claim_setup_token(token)
        again = "claimed"
    except SimpleFinClaimError:
        again = "refused"
    accounts = [
        [one.id, one.org.name, one.balance, one.possible_error, [row.amount for row in one.transactions]]
        for one in data.accounts
    ]
    print(json.dumps({"accounts": accounts, "again": again}))

asyncio.run(main())
"""


def test_simplefin4py_of_home_assistant_reads_accounts_and_sees_which_login_needs_its_user(served: Served) -> None:
    found = served.run(sys.executable, "-c", SIMPLEFIN4PY)

    amounts = ["-0.07", "1000.00", "-12.30"]
    first, second = served.accounts
    assert found["accounts"] == [
        [first, "My bank", "100.50", False, amounts],
        [second, "Old bank", "100.50", True, amounts],
    ]
    assert found["again"] == "refused"


SIMPLEFIN = """
import json, os
from datetime import date, timedelta
from simplefin import SimpleFINClient

client = SimpleFINClient(SimpleFINClient.get_access_url(os.environ["SETUP_TOKEN"]))
accounts = client.get_accounts()
rows = client.get_transactions(accounts[0]["id"], date.today() - timedelta(days=30))
print(json.dumps({
    "info": client.get_info(),
    "accounts": [one["id"] for one in accounts],
    "one": client.get_account(accounts[1]["id"])["id"],
    "rows": [[row["amount"], row["posted"].date().isoformat()] for row in rows],
}))
"""

GOETTA = """
import json, os
from datetime import datetime, timedelta, timezone
from goetta_finance.simplefin import SimpleFinClient, parse_accounts, parse_transactions

client = SimpleFinClient(SimpleFinClient.claim(os.environ["SETUP_TOKEN"]))
now = datetime.now(timezone.utc) + timedelta(days=1)
rows = [row for part in client.fetch_chunked(now - timedelta(days=300), now) for row in parse_transactions(part)]
accounts = parse_accounts(client.fetch(now - timedelta(days=1), now))
print(json.dumps({
    "accounts": [[one.id, str(one.balance), one.org_name] for one in accounts],
    "rows": sorted(str(row.amount) for row in rows),
    "ids": len({row.id for row in rows}),
}))
"""


def _fetched(directory: Path, *packages: str) -> str:
    """A folder with these packages without what they need, which our environment has."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python-version", "3.13"]
    subprocess.run([*command, "--target", str(directory), *packages], check=True, timeout=SECONDS)
    return str(directory)


@pytest.mark.release
def test_the_libraries_simplefin_and_goetta_finance_read_the_same(served: Served, tmp_path: Path) -> None:
    folder = _fetched(tmp_path, "simplefin==0.2.0", "goetta-finance==0.1.0")

    simple = served.run(sys.executable, "-c", SIMPLEFIN, PYTHONPATH=folder)
    goetta = served.run(sys.executable, "-c", GOETTA, PYTHONPATH=folder)

    assert simple["info"] == {"versions": ["1.0", "2.0"]}
    assert simple["accounts"] == served.accounts
    assert simple["one"] == served.accounts[1]
    days = [(DAY - timedelta(days=days)).isoformat() for days in (2, 1, 0)]
    assert simple["rows"] == [[amount, day] for amount, day in zip(("-0.07", "1000.00", "-12.30"), days, strict=True)]
    assert goetta["accounts"] == [
        [id_, "100.50", name] for id_, name in zip(served.accounts, ("My bank", "Old bank"), strict=True)
    ]
    assert goetta["rows"] == sorted(["-0.07", "1000.00", "-12.30"] * 2)
    assert goetta["ids"] == 6


# Actual's own module, with the modules around it replaced: its web framework, its store of secrets, its log.
ACTUAL_AROUND = {
    "node_modules/express/package.json": '{"type": "module", "main": "index.js"}',
    "node_modules/express/index.js": """
        export const routes = {};
        const express = () => ({ use() {}, post(path, handle) { routes[path] = handle; } });
        express.json = () => null;
        export default express;
    """,
    "build/src/app-gocardless/util/handle-error.js": "export const handleError = handle => handle;",
    "build/src/util/middlewares.js": "export const requestLoggerMiddleware = null;",
    "build/src/services/secrets-service.js": """
        const kept = { simplefin_token: process.env.SETUP_TOKEN };
        export const SecretName = { simplefin_token: 'simplefin_token', simplefin_accessKey: 'simplefin_accessKey' };
        export const secretsService = {
            get: name => kept[name] ?? null,
            set: (name, value) => { kept[name] = value; },
        };
    """,
    "ask.mjs": """
        import https from 'https';
        const ask = https.request;
        https.request = (url, options, told) => ask(url, { ...options, port: new URL(url).port }, told);
        const { routes } = await import('express');
        await import('./build/src/app-simplefin/app-simplefin.js');
        const call = (path, body) => new Promise(done => routes[path]({ body }, { send: done }));
        console.log = () => {};
        const accounts = (await call('/accounts')).data.accounts;
        const ids = accounts.map(one => one.id);
        const since = process.env.SINCE;
        const read = (await call('/transactions', { accountId: ids, startDate: ids.map(() => since) })).data;
        process.stdout.write(JSON.stringify({ accounts, read }) + '\\n');
    """,
}


@pytest.mark.release
def test_actual_reads_accounts_balances_and_transactions_and_shows_which_login_needs_its_user(
    served: Served, tmp_path: Path
) -> None:
    """Actual claims on port 443; the test sends its request to the port of this server."""
    npm = shutil.which("npm")
    assert npm, "this test needs Node and npm (Debian: nodejs, npm)"
    subprocess.run(
        [npm, "pack", "--silent", "@actual-app/sync-server@25.6.0"], cwd=tmp_path, check=True, timeout=SECONDS
    )
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    package = tmp_path / "package"
    for name, text in ACTUAL_AROUND.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    since = DAY - timedelta(days=1)

    found = served.run("node", package / "ask.mjs", SINCE=since.isoformat())

    first, second = served.accounts
    assert [[one["id"], one["org"]["name"], one["balance"]] for one in found["accounts"]] == [
        [first, "My bank", "100.50"],
        [second, "Old bank", "100.50"],
    ]
    read = found["read"]
    assert read[first]["startingBalance"] == read[second]["startingBalance"] == 10050
    booked = [
        [row["date"], row["transactionAmount"]["amount"], row["notes"]] for row in read[first]["transactions"]["booked"]
    ]
    assert booked == [[DAY.isoformat(), "-12.30", "Row 0"], [since.isoformat(), "1000.00", "Row 1"]]
    (pending,) = read[first]["transactions"]["pending"]
    assert (pending["date"], pending["booked"]) == (DAY.isoformat(), False)
    assert [one["error_code"] for one in read["errors"][second]] == ["ACCOUNT_NEEDS_ATTENTION"]
    assert first not in read["errors"]
