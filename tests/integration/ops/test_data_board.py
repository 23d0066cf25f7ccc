"""Grafana's board for data: its queries run as the role `readonly`, on the views alone, and give the right figures."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.integration.test_views import books
from tests.support.environment import ROOT
from worker.crud.roles import create_roles

pytestmark = pytest.mark.deep

__all__ = ["books"]  # the fixture: one person's accounts over four months

BOARD = json.loads((ROOT / "ops/grafana/dashboards/data.json").read_text())
PANELS = {panel["title"]: panel for panel in BOARD["panels"]}
VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}


@pytest.fixture
def readonly(books: Session) -> Session:
    """The session acts as the role `readonly`; roles go with the transaction."""
    roles = create_roles(books, prefix=f"test_{uuid4().hex[:8]}")
    books.execute(text(f"GRANT {roles.readonly} TO CURRENT_USER"))
    books.execute(text(f"SET LOCAL ROLE {roles.readonly}"))
    return books


def ask(session: Session, sql: str) -> list[dict[str, Any]]:
    """What Grafana gets: macros and variables are replaced as Grafana replaces them, with all users chosen."""
    now = datetime.now(UTC)
    users = [row["__value"] for row in run(session, VARIABLES["user"]["query"])]
    for name, value in {
        "$__timeFrom()": f"'{(now - timedelta(days=30)).isoformat()}'",
        "$__timeTo()": f"'{now.isoformat()}'",
        "$user": ",".join(f"'{user}'" for user in users),
        "$currency": run(session, VARIABLES["currency"]["query"])[0]["currency"],
    }.items():
        sql = sql.replace(name, value)
    assert "$" not in sql
    return run(session, sql)


def run(session: Session, sql: str) -> list[dict[str, Any]]:
    return [dict(row) for row in session.execute(text(sql.replace("::", "\\:\\:"))).mappings()]


def panel(session: Session, title: str) -> list[dict[str, Any]]:
    (target,) = PANELS[title]["targets"]
    return ask(session, target["rawSql"])


def test_figures_of_the_first_row(readonly: Session) -> None:
    assert panel(readonly, "Net worth") == [{"net_worth": Decimal("5649.90")}]
    assert panel(readonly, "Spent") == [{"spent": Decimal("70.00")}]
    assert panel(readonly, "Logins that need their users") == [{"logins": 0}]
    (oldest,) = panel(readonly, "Oldest figures")
    assert oldest["age"] is not None


def test_net_worth_by_day_has_each_day_once_and_ends_with_the_net_worth_now(readonly: Session) -> None:
    rows = panel(readonly, "Net worth by day")

    assert [row["time"] for row in rows] == sorted({row["time"] for row in rows})
    assert rows[-1]["net_worth"] == Decimal("5649.90")
    assert PANELS["Net worth by day"]["targets"][0]["format"] == "time_series"


def test_spending_by_category_and_by_month(readonly: Session) -> None:
    months = panel(readonly, "Money in and out by month")

    assert panel(readonly, "Spending by category") == [{"category": "FOOD", "spent": Decimal("70.00")}]
    assert sum(row["money_out"] for row in months) == Decimal("80.00")
    assert sum(row["money_in"] for row in months) == Decimal("10.00")


def test_tables_of_balances_holdings_and_freshness(readonly: Session) -> None:
    balances = {row["account"]: row["current"] for row in panel(readonly, "Balances")}
    (holding,) = panel(readonly, "Holdings")
    (login,) = panel(readonly, "Freshness")

    assert balances == {"Broker": Decimal(5000), "Checking": Decimal(900), "Card": Decimal("-250.10")}
    assert (holding["security"], holding["gain"], holding["gain_percent"]) == ("ACME", 300, Decimal("25.00"))
    assert (login["login"], login["status"], login["last_sync"]) == ("My bank", "active", None)


def test_every_query_reads_the_views_alone_and_every_panel_one_currency_or_none() -> None:
    for title, one in PANELS.items():
        (target,) = one["targets"]
        tables = re.findall(r"(?:FROM|JOIN)\s+([\w.]+)", target["rawSql"])
        others = {name for name in tables if not name.startswith("dashtam_v1.")}
        assert others <= {"generate_series", "now", "LATERAL"}, title
        assert "$user" in target["rawSql"], title
        if "sum(" in target["rawSql"]:
            assert "'$currency'" in target["rawSql"], title
    assert {"$user", "$currency"} == {f"${name}" for name in VARIABLES}


def test_compose_loads_the_board_and_gives_it_the_role_that_reads() -> None:
    services = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)["services"]
    (source,) = yaml.safe_load((ROOT / "ops/grafana/provisioning/datasources/postgres.yml").read_text())["datasources"]

    assert {one["datasource"]["uid"] for one in [*PANELS.values(), *VARIABLES.values()]} == {source["uid"]}
    assert source["user"] == "dashtam_readonly"
    assert source["jsonData"]["sslmode"] == "verify-full"
    files = re.findall(r"/run/secrets/(\w+)", json.dumps(source))
    assert set(files) == {"readonly_password", "tls_ca"} <= set(services["grafana"]["secrets"])
    assert "./ops/grafana/dashboards:/etc/dashboards:ro" in services["grafana"]["volumes"]
