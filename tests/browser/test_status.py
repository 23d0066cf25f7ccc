"""The status page in a browser: by keyboard alone, kept up to date, in both widths and both colours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from fastapi import FastAPI
from playwright.sync_api import expect
from sqlalchemy.orm import Session

from tests.browser.conftest import OpenPage, key_in, log_in
from tests.integration.web.conftest import Person, Sent, quiet_login, tick
from worker.models import Provider, SyncRun
from worker.models.fleet import Broker
from worker.runtime import Runtime
from worker.tasks import send as broker


@pytest.fixture(autouse=True)
def all_answer(monkeypatch: pytest.MonkeyPatch, rows: Session, application: FastAPI) -> None:
    """Workers answer, beat has just ticked, and what the test before saw is forgotten."""
    application.state.lookout._seen_at = float("-inf")
    names = ["refresh@here", "sync@here", "upkeep@here"]
    monkeypatch.setattr(broker, "ping_workers", lambda seconds: names)
    seen = Broker(True, dict.fromkeys(("refresh", "sync", "upkeep"), 0), 0, names, "Redis")
    monkeypatch.setattr(broker.AskedOnce, "broker", lambda _: seen)
    tick(rows)


@pytest.fixture
def login(web_runtime: Runtime, rows: Session, person: Person) -> Iterator[Provider]:
    """An active login of the person's."""
    with quiet_login(web_runtime, rows, person, alias="My brokerage") as made:
        yield made


def _run(login: Provider, **values: object) -> SyncRun:
    now = datetime.now(UTC)
    return SyncRun(provider_id=login.id, trigger="manual", owner=uuid4(), started_at=now, heartbeat_at=now, **values)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_first_screen_says_whether_all_is_well(
    open_page: OpenPage, superuser_token_headers: dict[str, str], login: Provider, width: int, dark: bool
) -> None:
    seen = open_page(width, dark=dark)
    log_in(seen, superuser_token_headers)

    expect(seen.page.get_by_role("heading", level=1)).to_have_text("All is well")
    for question in ("Who must act?", "What is down?", "On time?"):
        expect(seen.page.get_by_role("heading", name=question)).to_be_in_viewport()
    expect(seen.page.locator("#liveness")).to_have_text("live")
    seen.fits()
    seen.shot("status-dark" if dark else "status")


def test_keyboard_alone_syncs_pauses_and_resumes_a_login(
    open_page: OpenPage, superuser_token_headers: dict[str, str], login: Provider, sent: Sent, width: int
) -> None:
    seen = open_page(width)
    seen.go("/login")
    seen.type(key_in(superuser_token_headers))
    seen.press("Enter")
    seen.page.wait_for_url("**/status")
    seen.tab_to("My brokerage")
    seen.press("Enter")
    seen.page.wait_for_url("**/logins/*")

    sent.tasks.clear()
    for button, told in (("Sync now", "A sync was asked for"), ("Pause", "It is paused"), ("Resume", "It goes on")):
        seen.tab_to(button)
        seen.press("Enter")
        expect(seen.page.get_by_role("status").filter(has_text="Done.")).to_contain_text(told)
        seen.fits()
    seen.shot("login-page")

    assert [task.rpartition(".")[2] for task, _, _ in sent.tasks] == ["sync_providers"]


def test_page_shows_what_happens_without_a_reload_and_keeps_the_focus(
    open_page: OpenPage, person: Person, login: Provider, rows: Session, width: int
) -> None:
    seen = open_page(width)
    log_in(seen, person.headers)
    seen.go(f"/status/logins/{login.id}")
    expect(seen.page.locator("#liveness")).to_have_text("live")
    expect(seen.page.get_by_text("It was never refreshed and never synced.")).to_be_visible()
    seen.tab_to("Sync now")
    seen.page.evaluate("window.notReloaded = true")

    run = _run(login, pages=1)
    rows.add(run)
    rows.commit()
    expect(seen.page.locator(".timeline li")).to_contain_text("running")
    run.status, run.finished_at, run.added = "completed", datetime.now(UTC), 12
    rows.commit()

    expect(seen.page.locator(".timeline li")).to_contain_text("12 added")
    expect(seen.page.get_by_role("button", name="Sync now")).to_be_focused()
    assert seen.page.evaluate("window.notReloaded")
    seen.shot("login-timeline")


def test_page_works_without_its_script(
    open_page: OpenPage, person: Person, login: Provider, rows: Session, width: int
) -> None:
    seen = open_page(width)
    seen.allowed += ["live.js", "Failed to load resource"]
    seen.page.route("**/live.js", lambda route: route.abort())
    log_in(seen, person.headers)
    seen.page.get_by_role("link", name="My brokerage").click()
    rows.add(_run(login, status="completed", added=3))
    rows.commit()
    seen.page.reload()

    expect(seen.page.locator(".timeline li")).to_contain_text("3 added")
    expect(seen.page.locator("#liveness")).to_contain_text("reload this page")


def test_search_finds_a_login(
    open_page: OpenPage, superuser_token_headers: dict[str, str], login: Provider, width: int
) -> None:
    seen = open_page(width)
    log_in(seen, superuser_token_headers)
    seen.page.get_by_label("Search", exact=True).fill("broker")
    seen.press("Enter")
    seen.page.wait_for_url("**/status?q=broker*")
    expect(seen.page.get_by_role("link", name="My brokerage")).to_be_visible()
    seen.page.get_by_label("Search", exact=True).fill("nothing like this")
    seen.press("Enter")

    expect(seen.page.get_by_text("No login is like this.")).to_be_visible()


def test_button_of_a_page_that_another_site_has_changed_does_nothing(
    open_page: OpenPage, person: Person, login: Provider, sent: Sent, width: int
) -> None:
    seen = open_page(width)
    seen.allowed.append("status of 403")
    log_in(seen, person.headers)
    seen.go(f"/status/logins/{login.id}")
    seen.page.evaluate("document.querySelectorAll('[name=form_token]').forEach(one => one.value = 'foreign')")
    sent.tasks.clear()
    seen.page.get_by_role("button", name="Sync now").click()

    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Forbidden")
    expect(seen.page.get_by_text("nothing was changed")).to_be_visible()
    assert not sent.tasks


def test_what_is_down_is_told_first(
    open_page: OpenPage,
    superuser_token_headers: dict[str, str],
    login: Provider,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    monkeypatch.setattr(broker, "ping_workers", lambda seconds: [])
    seen = open_page(width)
    log_in(seen, superuser_token_headers)

    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Something is down")
    expect(seen.page.get_by_text("none answers, so nothing is refreshed or synced").first).to_be_in_viewport()
    seen.fits()
    seen.shot("status-down")
