"""The status page: what it shows to whom, its buttons, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.web.conftest import Person, Sent, make_key, make_person, quiet_login, runtime_run, tick
from tests.integration.web.test_login import browser, form_token, log_in
from worker.errors import Unavailable
from worker.models import Provider, SyncRun, TaskFailure, TokenRefresh, User
from worker.models.fleet import Broker
from worker.runtime import Runtime
from worker.services.access import acting
from worker.tasks import send as broker

__all__ = ["browser"]  # fixture


@pytest.fixture(autouse=True)
def all_answer(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    """Workers and queues answer at once, and what was seen of them before is forgotten."""
    names = ["refresh@here", "sync@here", "upkeep@here"]
    monkeypatch.setattr(broker, "ping_workers", lambda seconds: names)
    monkeypatch.setattr(
        broker.AskedOnce, "broker", lambda _: Broker(True, {"refresh": 3, "sync": 1, "upkeep": 0}, 2, names, "Redis")
    )
    client.app.state.lookout._seen_at = float("-inf")  # type: ignore[attr-defined]


@pytest.fixture
def ada(web_runtime: Runtime) -> Person:
    """A user of the test's own."""
    return make_person(web_runtime)


@pytest.fixture
def login(web_runtime: Runtime, rows: Session, ada: Person) -> Iterator[Provider]:
    """An active login of hers of which nothing is due."""
    with quiet_login(web_runtime, rows, ada, alias="Home <b>&") as made:
        yield made


@pytest.fixture
def ticking(rows: Session) -> None:
    """Beat has just ticked."""
    tick(rows)


def press(browser: TestClient, page: str, action: str) -> Any:
    """Presses the button of a form on a page."""
    return browser.post(action, data={"form_token": form_token(browser.get(page).text, action)})


def test_operator_sees_whether_all_is_well(
    browser: TestClient, superuser_token_headers: dict[str, str], login: Provider, ticking: None
) -> None:
    log_in(browser, superuser_token_headers)

    page = browser.get("/status").text

    assert "All is well" in page
    assert "Nobody has to act." in page
    assert "3 waiting" in page
    assert "upkeep@here" in page
    assert "Home &lt;b&gt;&amp;" in page
    assert "<b>&" not in page


@pytest.mark.deep
def test_operator_sees_what_is_down_first(
    browser: TestClient,
    superuser_token_headers: dict[str, str],
    ticking: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker, "ping_workers", lambda seconds: [])
    log_in(browser, superuser_token_headers)

    page = browser.get("/status").text

    assert "Something is down" in page
    assert "To do: start one: celery" in page


@pytest.mark.deep
def test_without_redis_the_page_says_so(
    browser: TestClient, superuser_token_headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> Any:
        raise Unavailable("Redis does not run", server="redis")

    log_in(browser, superuser_token_headers)
    monkeypatch.setattr(broker, "impatient_redis", away)
    monkeypatch.setattr(broker.AskedOnce, "impatient_redis", away)
    monkeypatch.setattr(broker.AskedOnce, "broker", lambda _: Broker(False, {}, None, [], "Redis"))

    page = browser.get("/status")

    assert page.status_code == 200
    assert "Redis cannot be asked" in page.text


@pytest.mark.deep
def test_user_sees_their_own_logins_and_nothing_of_the_servers(
    browser: TestClient, ada: Person, login: Provider, person: Person
) -> None:
    log_in(browser, ada.headers)
    own = browser.get("/status").text
    browser.cookies.clear()
    log_in(browser, person.headers)
    other = browser.get("/status").text
    foreign = browser.get(f"/status/logins/{login.id}")

    assert str(login.id) in own
    assert "Queues and processes" not in own
    assert "/integrations/" not in own
    assert str(login.id) not in other
    assert foreign.status_code == 403
    assert "belongs to another user" in foreign.text


@pytest.mark.deep
def test_user_reads_who_must_act(browser: TestClient, ada: Person, login: Provider, rows: Session) -> None:
    login.status, login.status_reason = "needs_reauth", "grant_expired"
    rows.commit()
    log_in(browser, ada.headers)

    page, view = browser.get("/status").text, browser.get(f"/status/logins/{login.id}").text

    assert "1 login</a> must be linked again" in page
    assert "Its user must act." in view
    assert "dashtam link" in view
    assert "/sync" not in view


@pytest.mark.deep
def test_login_has_its_explanation_and_its_timeline(
    browser: TestClient, ada: Person, login: Provider, rows: Session
) -> None:
    now = datetime.now(UTC)
    rows.add(
        SyncRun(
            provider_id=login.id,
            status="completed",
            trigger="manual",
            owner=uuid4(),
            started_at=now - timedelta(minutes=5),
            heartbeat_at=now,
            finished_at=now,
            added=42,
        )
    )
    rows.add(
        TokenRefresh(
            provider_id=login.id,
            generation=1,
            status="failed",
            error="auth_error",
            reason="<script>",
            lease_owner=uuid4(),
            started_at=now - timedelta(minutes=3),
        )
    )
    rows.commit()
    log_in(browser, ada.headers)

    page = browser.get(f"/status/logins/{login.id}").text

    timeline = page[page.index('id="timeline"') :]
    assert timeline.index("auth_error") < timeline.index("42 added")
    assert "&lt;script&gt;" in timeline
    assert "The schedule refreshes and syncs it" in page or "the schedule refreshes and syncs it" in page


@pytest.mark.deep
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=Home", True),
        ("q=home", True),
        ("q=ome", True),
        ("q=Homeless", False),
        ("q=%25", False),
        ("q=_", False),
        ("q=<b>", True),
        ("state=active", True),
        ("state=paused", False),
        ("state=", True),
        ("integration=schwab", True),
        ("integration=plaid", False),
        ("before=00000000-0000-7000-8000-000000000001", False),
    ],
)
def test_logins_are_searched(browser: TestClient, ada: Person, login: Provider, query: str, found: bool) -> None:
    log_in(browser, ada.headers)

    assert (str(login.id) in browser.get(f"/status?{query}").text) is found


@pytest.mark.deep
def test_operator_searches_by_id_and_by_address(
    browser: TestClient, superuser_token_headers: dict[str, str], ada: Person, login: Provider, rows: Session
) -> None:
    email = rows.get_one(User, ada.user_id).email or ""
    log_in(browser, superuser_token_headers)

    for wanted in (str(login.id), str(login.id)[:-4], email, email[: email.index("@") + 2]):
        assert f"/status/logins/{login.id}" in browser.get("/status", params={"q": wanted}).text, wanted
    for other in (str(uuid4()), f"x{email}"):
        assert f"/status/logins/{login.id}" not in browser.get("/status", params={"q": other}).text, other


@pytest.mark.deep
@pytest.mark.parametrize(
    "query", ["q=" + "x" * 101, "state=happy", "integration=A'", "before=x", "done=<script>", "q=%ff", "q=%00"]
)
def test_query_that_cannot_be_is_told_on_a_page(
    browser: TestClient, superuser_token_headers: dict[str, str], query: str
) -> None:
    log_in(browser, superuser_token_headers)

    answer = browser.get(f"/status?{query}")

    assert answer.status_code in (200, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script>" not in answer.text


@pytest.mark.deep
def test_older_logins_are_on_further_pages(browser: TestClient, web_runtime: Runtime, rows: Session) -> None:
    many = make_person(web_runtime)
    user = rows.get_one(User, many.user_id)
    ids = [str(make_linked_provider(rows, web_runtime.encryption, user=user).id) for _ in range(60)]
    rows.commit()
    log_in(browser, many.headers)

    seen, address = [], "/status"
    while address:
        page = browser.get(address).text
        seen += re.findall(r'href="/status/logins/([^"]+)"', page)
        older = re.search(r'href="([^"#]+)[^"]*">Older logins', page)
        address = older[1].replace("&amp;", "&") if older else ""

    assert seen == sorted(ids, reverse=True)
    assert ">Newest</a>" in page


@pytest.mark.deep
def test_page_that_has_much_to_tell_is_small(
    browser: TestClient, web_runtime: Runtime, superuser_token_headers: dict[str, str], rows: Session
) -> None:
    user = rows.get_one(User, make_person(web_runtime).user_id)
    made: list[Any] = [
        make_linked_provider(rows, web_runtime.encryption, user=user, alias=f"{number:02}" + "<&>\"'" * 19)
        for number in range(30)
    ]
    letters = [
        TaskFailure(
            task_id=f"m{number}",
            task_name="worker.tasks.accounts.sync_providers",
            arguments={"args": [[str(login.id) for login in made]], "kwargs": {}},
            reason="<&>" * 500,
            deliveries=3,
        )
        for number in range(30)
    ]
    rows.add_all(letters)
    rows.commit()
    log_in(browser, superuser_token_headers)

    page = browser.get("/status")
    for row in (*letters, *made):
        rows.delete(row)
    rows.commit()

    assert page.text.count("Send again") == 10
    assert len(page.content) <= 100_000


# Buttons --------------------------------------------------------------------------------------------------------------


def test_buttons_ask_for_a_refresh_and_a_sync(browser: TestClient, ada: Person, login: Provider, sent: Sent) -> None:
    log_in(browser, ada.headers)
    here = f"/status/logins/{login.id}"

    sent.tasks.clear()
    answers = [press(browser, here, f"{here}/{what}") for what in ("refresh", "sync")]

    assert [(answer.status_code, answer.headers["location"]) for answer in answers] == [
        (303, f"{here}?done=refresh"),
        (303, f"{here}?done=sync"),
    ]
    assert [task.rpartition(".")[2] for task, _, _ in sent.tasks] == ["refresh_providers", "sync_providers"]
    assert "A sync was asked for." in browser.get(f"{here}?done=sync").text


@pytest.mark.deep
def test_operator_pauses_and_resumes_a_login_and_the_log_says_who(
    browser: TestClient, superuser_token_headers: dict[str, str], login: Provider, rows: Session
) -> None:
    log_in(browser, superuser_token_headers)
    here = f"/status/logins/{login.id}"

    paused = press(browser, here, f"{here}/pause")
    rows.refresh(login)
    status = login.status
    resumed = press(browser, here, f"{here}/resume")
    rows.refresh(login)

    assert (paused.status_code, resumed.status_code) == (303, 303)
    assert (status, login.status) == ("paused", "active")
    log = rows.execute(
        text("SELECT action, actor FROM provider_audit_logs WHERE provider_id = :id ORDER BY seq"), {"id": login.id}
    ).all()
    assert [action for action, _ in log] == ["paused", "resumed"]
    assert all(actor.startswith("operator:key ") for _, actor in log)


@pytest.mark.deep
def test_operator_pauses_and_resumes_an_integration(
    browser: TestClient, superuser_token_headers: dict[str, str], login: Provider
) -> None:
    log_in(browser, superuser_token_headers)

    paused = press(browser, "/status", f"/status/integrations/{login.provider_key}/pause")
    page = browser.get(f"/status/logins/{login.id}").text
    refused = press(browser, f"/status/logins/{login.id}", f"/status/logins/{login.id}/sync")
    resumed = press(browser, "/status", f"/status/integrations/{login.provider_key}/resume")

    assert (paused.status_code, resumed.status_code) == (303, 303)
    assert "An operator must act." in page
    assert refused.status_code == 409
    assert "Back to the status page" in refused.text


@pytest.mark.deep
def test_operator_sends_a_failed_task_again_once(
    browser: TestClient, superuser_token_headers: dict[str, str], rows: Session, sent: Sent
) -> None:
    letter = TaskFailure(
        task_id="m",
        task_name="worker.tasks.accounts.sync_providers",
        arguments={"args": [[str(uuid4())]], "kwargs": {}},
        reason="it killed its worker",
        deliveries=3,
    )
    rows.add(letter)
    rows.commit()
    log_in(browser, superuser_token_headers)
    action = f"/status/failures/{letter.id}/replay"
    token = form_token(browser.get("/status").text, action)

    sent.tasks.clear()
    answers = [browser.post(action, data={"form_token": token}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [303, 409]
    assert [task for task, _, _ in sent.tasks] == ["worker.tasks.accounts.sync_providers"]


@pytest.mark.deep
def test_login_that_needs_its_user_is_linked_again_from_its_page(
    browser: TestClient, web_runtime: Runtime, ada: Person, login: Provider, rows: Session
) -> None:
    log_in(browser, ada.headers)
    here = f"/status/logins/{login.id}"
    before = browser.get(here).text
    login.status, login.status_reason = "needs_reauth", "grant_expired"
    rows.commit()

    answer = press(browser, here, f"{here}/link")
    page = browser.get(answer.headers["location"])

    assert f"{here}/link" not in before
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/link?session=")
    assert page.status_code in (200, 303)
    browser.cookies.clear()
    log_in(browser, make_key(web_runtime, ada.user_id, "read", "operate"))
    assert f"{here}/link" not in browser.get(here).text


def _buttons(login: Provider) -> list[str]:
    here = f"/status/logins/{login.id}"
    return [
        *(f"{here}/{what}" for what in ("refresh", "sync", "pause", "resume", "link")),
        *(f"/status/integrations/{login.provider_key}/{what}" for what in ("pause", "resume")),
        f"/status/failures/{uuid4()}/replay",
    ]


def _secret(web_runtime: Runtime, browser: TestClient) -> str:
    from worker.services.access import sessions

    found = runtime_run(web_runtime, sessions.read(web_runtime, browser.cookies["dashtam_session"]))
    return str(found.secret)


def _press_all(web_runtime: Runtime, browser: TestClient, login: Provider) -> dict[str, int]:
    """The answers to each button, pressed with a token that is right even where the page has no such button."""
    from worker.web.forms import token

    secret = _secret(web_runtime, browser)
    return {
        action: browser.post(action, data={"form_token": token(secret, action)}).status_code
        for action in _buttons(login)
    }


@pytest.mark.deep
def test_key_that_only_reads_sees_no_button_and_presses_none(
    browser: TestClient, web_runtime: Runtime, login: Provider, sent: Sent
) -> None:
    log_in(browser, make_key(web_runtime, None, "read"))
    pages = browser.get("/status").text + browser.get(f"/status/logins/{login.id}").text

    sent.tasks.clear()
    answers = _press_all(web_runtime, browser, login)

    assert set(re.findall(r'method="post" action="([^"]+)"', pages)) == {"/logout"}
    assert set(answers.values()) == {403}
    assert not sent.tasks


def test_stranger_presses_nothing_of_anothers_login(
    browser: TestClient, web_runtime: Runtime, stranger: Person, login: Provider, sent: Sent, rows: Session
) -> None:
    log_in(browser, stranger.headers)

    sent.tasks.clear()
    answers = _press_all(web_runtime, browser, login)

    assert set(answers.values()) == {403}
    assert not sent.tasks
    rows.refresh(login)
    assert login.status == "active"


@pytest.mark.deep
def test_switches_of_operators_are_not_for_users(
    browser: TestClient, web_runtime: Runtime, ada: Person, login: Provider, rows: Session
) -> None:
    log_in(browser, ada.headers)

    answers = _press_all(web_runtime, browser, login)

    allowed = {action for action, status in answers.items() if status == 303}
    assert allowed == {f"/status/logins/{login.id}/{what}" for what in ("refresh", "sync", "link")}
    rows.refresh(login)
    assert login.status == "active"


@pytest.mark.deep
def test_button_without_the_token_of_its_form_does_nothing(
    browser: TestClient, superuser_token_headers: dict[str, str], login: Provider, sent: Sent
) -> None:
    log_in(browser, superuser_token_headers)
    foreign = form_token(browser.get("/status").text, "/logout")

    sent.tasks.clear()
    answers = [
        browser.post(action, data=data)
        for action in _buttons(login)
        for data in ({}, {"form_token": "x"}, {"form_token": foreign})
    ]

    assert {answer.status_code for answer in answers} == {403}
    assert not sent.tasks


@pytest.mark.deep
@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/status/logins/{UUID(int=4)}", 404),
        ("/status/logins/x", 422),
        ("/status/nowhere", 404),
        ("/status/logins/../../etc/passwd", 404),
    ],
)
def test_what_is_not_there_is_said_so(
    browser: TestClient, superuser_token_headers: dict[str, str], path: str, status: int
) -> None:
    log_in(browser, superuser_token_headers)

    assert browser.get(path).status_code == status


@pytest.mark.deep
def test_unknown_integration_is_refused(
    browser: TestClient, web_runtime: Runtime, superuser_token_headers: dict[str, str]
) -> None:
    from worker.web.forms import token

    log_in(browser, superuser_token_headers)
    action = "/status/integrations/nowhere/pause"

    answer = browser.post(action, data={"form_token": token(_secret(web_runtime, browser), action)})

    assert answer.status_code == 400


@pytest.mark.deep
def test_key_over_its_rate_is_told_on_a_page(
    browser: TestClient, web_runtime: Runtime, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(browser, ada.headers)
    before = web_runtime.settings
    monkeypatch.setattr(web_runtime, "settings", before.model_copy(update={"web_key_rate": "1/hour"}))

    answers = [browser.get("/status") for _ in range(2)]

    assert answers[1].status_code == 429
    assert answers[1].headers["content-type"].startswith("text/html")
    assert int(answers[1].headers["retry-after"]) > 0


@pytest.mark.deep
def test_operators_switches_are_for_operators_in_the_service_too(web_runtime: Runtime, person: Person) -> None:
    from worker.errors import NotPermitted
    from worker.services.access import keys

    who = runtime_run(web_runtime, keys.authenticate(web_runtime, person.headers["Authorization"].split()[1]))

    with pytest.raises(NotPermitted):
        acting.require_operator(who)
