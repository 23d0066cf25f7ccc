"""What every request passes: key, host, rate, length, headers; and what the answer is when one is refused."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from sqlalchemy import text
from structlog.testing import capture_logs

from tests.integration.web.conftest import HOST, Person, Sent, make_key, runtime_run
from worker.errors import Unavailable
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.services.access import keys
from worker.settings import Settings, load
from worker.tasks import send as broker
from worker.web.__main__ import leave_when_wedged
from worker.web.application import ROUTERS, create_app
from worker.web.asking import authenticate
from worker.web.link_pages import filled
from worker.web.middleware import Body
from worker.web.pages import PageRoute
from worker.web.signing_in import entering, pressed, signed_in
from worker.web.uploads import uploaded

NEEDS_NO_KEY = {
    "/": "names the server and where its documentation is",
    "/healthz": "asked by whoever supervises the process, who has no key",
    "/readyz": "the same",
    "/health": "the same, in the words of earlier versions",
    "/api/v1/health": "the same, in the words of earlier versions",
    "/docs": "documentation, the same for everybody",
    "/api/v1/provider-types": "which institutions can be linked is no secret: a sign-up page shows it",
    "/api/v1/provider-types/{key}": "the same",
    "/login": "where a browser gives its key; the form has a token of its own",
    "/static/{version}/{name}": "stylesheet, scripts and icon, the same for everybody",
    "/simplefin/info": "the protocol wants it so: which versions there are, the same for everybody",
    "/simplefin/currencies/{code}": "the same: what a currency is called",
    "/simplefin/claim/{token}": "the setup token is the key, once",
    "/simplefin/accounts": "asks for the user name and password of an access URL; see test_simplefin.py",
    "/webhooks/{provider_key}": "a provider posts here: it signs its hooks",
    "/demonstration": "of `dashtam run` alone, where everybody on this machine may try it",
    "/link": "a person in a browser, who has no key: the secret of a link session",
    "/link/scripts/{provider_key}.js": "a script of ours, the same for everybody",
    "/link/{session_id}": "the same browser: its cookie has the secret",
    "/link/{session_id}/{provider_key}": "the same browser: its cookie has the secret",
    "/link/{session_id}/{provider_key}/file": "the same browser: its cookie has the secret",
    "/oauth/{provider_key}/callback": "a browser that a provider sends: state and cookie",
    "/api/v1/providers/{provider_id}/authorization/callback": "a browser that a provider sends: state and cookie",
}
"""Every route that asks for no API key, and why not."""


def _asks(route: Any, *dependencies: Any) -> bool:
    return any(part.call in dependencies for part in route.dependant.dependencies)


def _asks_for_a_key(route: Any) -> bool:
    return _asks(route, authenticate, signed_in, pressed)


def test_each_route_asks_for_a_key_or_stands_in_the_table_that_says_why_not() -> None:
    open_ = {route.path for router in ROUTERS for route in router.routes if not _asks_for_a_key(route)}

    assert open_ == NEEDS_NO_KEY.keys()


def test_each_form_is_sent_with_a_token_that_is_checked() -> None:
    forms = [route for router in ROUTERS for route in router.routes if isinstance(route, PageRoute)]

    for route in forms:
        assert route.methods <= {"GET"} or _asks(route, pressed, entering, filled, uploaded), route.path
    assert {"/login", "/logout"} <= {route.path for route in forms if "POST" in route.methods}


def test_the_application_has_no_route_but_those_of_the_routers(client: TestClient) -> None:
    own = {getattr(route, "path", None) for route in client.app.routes} - {None}  # type: ignore[attr-defined]

    assert own == {"/openapi.json"}


@pytest.mark.deep
@pytest.mark.parametrize(
    "endpoint",
    [route.endpoint for router in ROUTERS for route in router.routes],
    ids=lambda endpoint: endpoint.__name__,
)
def test_route_hands_its_work_to_a_service(endpoint: Any) -> None:
    (function,) = ast.parse(inspect.getsource(endpoint)).body
    assert isinstance(function, ast.AsyncFunctionDef)
    assert ast.get_docstring(function)
    first = function.body[1]

    assert (function.end_lineno or 0) - first.lineno + 1 <= 15


def _problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    assert "Traceback" not in response.text
    return problem


@pytest.mark.deep
def test_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"postgres": "ok", "redis": "ok"})
    assert client.get("/health").json()["status"] == "healthy"
    assert client.get("/api/v1/health/").json() == {"status": "healthy", "version": "v1"}
    assert client.get("/").json()["docs"] == "/docs"


def test_without_redis_it_is_alive_and_not_ready(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise Unavailable("Redis: ConnectionError; pending work is kept")

    monkeypatch.setattr(broker, "impatient_redis", away)

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["redis"].startswith("Redis: ConnectionError")
    assert client.get("/health").json()["status"] == "degraded"
    assert client.get("/healthz").status_code == 200


@pytest.mark.deep
def test_every_answer_has_the_headers_that_keep_browsers_safe(client: TestClient) -> None:
    for path in ("/healthz", "/docs", "/nowhere", "/api/v1/provider-types"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers


def test_documentation_lists_every_route_and_loads_nothing(client: TestClient) -> None:
    page = client.get("/docs").text

    assert "<script" not in page
    assert "src=" not in page
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page
    for answer_of_a_route in ("Everyday Checking", "purchase_apr", "CORNER GROCERY", "link?session="):
        assert answer_of_a_route in page


def test_openapi_names_the_problem_document_for_every_error(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()

    assert "HTTPValidationError" not in schema["components"]["schemas"]
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            for status, response in operation["responses"].items():
                if status >= "400" and "content" in response and status != "503":
                    assert "application/problem+json" in response["content"], (operation["summary"], status)


@pytest.mark.deep
@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com", "", "127.0.0.1:8000:1", "evil@127.0.0.1"])
def test_a_host_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    problem = _problem(client.get("/api/v1/provider-types", headers={"Host": host}), 400)

    assert "WEB_HOSTS" in problem["detail"]


@pytest.mark.deep
def test_a_refusal_repeats_no_setup_token(client: TestClient) -> None:
    claim = "sfc_gtCd3zWMKPUZ3PExZz2tVn61MCCuSDGSw1uCoYRAG3s"

    refused = client.post(f"/simplefin/claim/{claim}", headers={"Host": "example.com"})
    unknown = client.post(f"/simplefin/claim/{claim}/more")
    login = client.get("/api/v1/providers/01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11")

    assert _problem(refused, 400)["instance"] == _problem(unknown, 404)["instance"].removesuffix("/more")
    assert claim not in refused.text + unknown.text
    assert _problem(login, 401)["instance"] == "/api/v1/providers/01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11"


@pytest.mark.deep
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "LOCALHOST", "[::1]", "[::1]:80"])
def test_our_own_names_are_served_with_any_port(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/health", headers={"Host": host}).status_code == 200


def test_supervisors_ask_by_whatever_name_they_know(client: TestClient) -> None:
    assert client.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200


@pytest.mark.deep
def test_what_is_not_there_is_said_so(client: TestClient) -> None:
    _problem(client.get("/nowhere"), 404)
    _problem(client.post("/healthz"), 405)


def test_answer_to_an_unexpected_error_says_nothing_of_its_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.services.access import catalogue

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(catalogue, "types", fail)

    with capture_logs() as lines:
        response = client.get("/api/v1/provider-types")

    _problem(response, 500)
    assert "request_failed" in [line["event"] for line in lines]
    assert "secret inside" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


# Length ---------------------------------------------------------------------------------------------------------------


def test_body_that_says_it_is_too_long_is_not_read(client: TestClient) -> None:
    headers = {"Content-Length": str(10**9)}

    assert (
        "longer than 262144" in _problem(client.post("/api/v1/health", content=b"{}", headers=headers), 413)["detail"]
    )


def test_body_that_does_not_say_its_length_is_read_to_the_limit_alone(client: TestClient) -> None:
    given = []

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            given.append(1)
            yield b"x" * 64 * 1024

    _problem(client.post("/api/v1/health", content=chunks()), 413)


def _app(*, seconds: float) -> Body:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await JSONResponse({"bytes": len(message["body"])})(scope, receive, send)

    return Body(echo, load(Settings).model_copy(update={"web_body_bytes": 10, "web_body_seconds": seconds}))


def _answer(app: Body, *messages: dict[str, Any]) -> int:
    """The status of the answer to a body that comes in these messages, and then no more."""
    statuses: list[int] = []
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return statuses[0]


def _part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_body_is_read_whole_or_refused(web_runtime: Runtime) -> None:
    app = _app(seconds=60)

    assert _answer(app, _part(b"12345", more=True), _part(b"67890", more=False)) == 200
    assert _answer(app, _part(b"12345", more=True), _part(b"678901", more=True)) == 413


def test_body_that_never_ends_is_not_waited_for(web_runtime: Runtime) -> None:
    assert _answer(_app(seconds=0.01), _part(b"1", more=True)) == 408


# Keys -----------------------------------------------------------------------------------------------------------------


def _who(runtime: Runtime, headers: dict[str, str]) -> keys.Principal:
    found: keys.Principal = runtime_run(runtime, keys.authenticate(runtime, headers["Authorization"].split()[1]))
    return found


@pytest.mark.deep
def test_key_tells_whose_it_is_and_what_it_may(web_runtime: Runtime, person: Person) -> None:
    headers = make_key(web_runtime, person.user_id, KeyScope.READ)

    who = _who(web_runtime, headers)

    assert (who.user_id, who.scopes) == (person.user_id, {"read"})
    assert who.actor.startswith("user:key ")


@pytest.mark.deep
def test_key_is_stored_as_a_hash_alone(web_runtime: Runtime, person: Person) -> None:
    key = make_key(web_runtime, person.user_id)["Authorization"].split()[1]

    with web_runtime.transaction() as session:
        stored = session.execute(text("SELECT k::text FROM api_keys AS k")).scalars().all()

    assert stored
    assert not any(key in row or key[-43:] in row for row in stored)


@pytest.mark.deep
def test_key_that_has_expired_opens_nothing(web_runtime: Runtime, person: Person) -> None:
    headers = make_key(web_runtime, person.user_id)
    with web_runtime.transaction() as session:
        session.execute(
            text("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE prefix = :prefix"),
            {"prefix": _who(web_runtime, headers).prefix},
        )

    with pytest.raises(keys.NotAuthenticated):
        _who(web_runtime, headers)


def test_revoked_key_opens_nothing_and_the_log_says_who_did_it(web_runtime: Runtime, person: Person) -> None:
    headers = make_key(web_runtime, person.user_id)
    prefix = _who(web_runtime, headers).prefix

    row, changed = runtime_run(web_runtime, keys.revoke(web_runtime, prefix, actor="operator:ada"))
    again = runtime_run(web_runtime, keys.revoke(web_runtime, prefix, actor="operator:ada"))

    assert (changed, again[1]) == (True, False)
    with pytest.raises(keys.NotAuthenticated):
        _who(web_runtime, headers)
    with web_runtime.transaction() as session:
        log = session.execute(
            text("SELECT action, actor FROM provider_audit_logs WHERE provider_id = :id ORDER BY seq"), {"id": row.id}
        ).all()
    assert [tuple(entry) for entry in log] == [
        ("api_key_created", "operator:tests"),
        ("api_key_revoked", "operator:ada"),
    ]


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ("read",)), ("x" * 101, ("read",)), ("a\nb", ("read",)), ("fine", ("everything",))]
)
def test_key_with_a_bad_name_or_scope_is_not_made(web_runtime: Runtime, name: str, scopes: tuple[str, ...]) -> None:
    wanted = keys.create(
        web_runtime, name=name, scopes=scopes, user_id=None, lifetime=timedelta(days=1), actor="operator:tests"
    )
    with pytest.raises(keys.BadArgument, match=r"(?i)no key was made"):
        runtime_run(web_runtime, wanted)


# Rates ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_client(web_runtime: Runtime, sent: Sent) -> Iterator[TestClient]:
    """An application that may be asked three times an hour from one address."""
    before = web_runtime.settings
    web_runtime.settings = before.model_copy(update={"web_address_rate": "3/hour"})
    app = create_app(web_runtime, send=sent, transport=broker)
    web_runtime.settings = before
    with TestClient(app, base_url=HOST, client=("192.0.2.7", 1)) as asking:
        yield asking


def test_address_that_asks_too_often_is_told_when_to_come_back(slow_client: TestClient) -> None:
    answers = [slow_client.get("/api/v1/health") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert "3/hour" in _problem(answers[-1], 429)["detail"]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 3600
    assert slow_client.get("/healthz").status_code == 200


def test_while_redis_is_away_each_process_counts_for_itself(web_runtime: Runtime) -> None:
    from pydantic import SecretStr

    from worker.web.rates import Rates

    away = web_runtime.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})

    async def ask() -> list[bool]:
        rates = Rates(away)
        waits = [await rates.wait("2/hour", "key", "abc") for _ in range(3)]
        await rates.aclose()
        return [wait is None for wait in waits]

    assert runtime_run(web_runtime, ask()) == [True, True, False]


@pytest.mark.deep
def test_addresses_of_one_ipv6_network_are_one_party(web_runtime: Runtime, sent: Sent) -> None:
    before = web_runtime.settings
    web_runtime.settings = before.model_copy(update={"web_address_rate": "2/hour"})
    app = create_app(web_runtime, send=sent, transport=broker)
    web_runtime.settings = before

    def ask(address: str) -> int:
        return asking(address).get("/api/v1/health").status_code

    with TestClient(app, base_url=HOST) as first:

        def asking(address: str) -> TestClient:
            first._transport.client = (address, 1)  # type: ignore[attr-defined]
            return first

        assert [ask(f"2001:db8:1:2::{number}") for number in range(3)] == [200, 200, 429]
        assert ask("2001:db8:1:3::1") == 200


# The program ----------------------------------------------------------------------------------------------------------


def test_server_whose_threads_stand_still_ends_so_that_another_takes_its_place() -> None:
    class Standing:
        looks = 0

        @property
        def is_wedged(self) -> bool:
            self.looks += 1
            return self.looks > 2

    class Server:
        should_exit = False

    server, runtime = Server(), Standing()
    leave_when_wedged(server, runtime, every_s=0)  # type: ignore[arg-type]

    assert server.should_exit
    assert runtime.looks == 3
