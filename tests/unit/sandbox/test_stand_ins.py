"""Stand-ins are found beside their integrations; what they all need comes with the sandbox."""

from __future__ import annotations

import base64
import hashlib
import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest

from tests.unit.sandbox import toy
from tests.unit.sandbox.asking import ask, get_request
from worker.integrations.registry import REGISTRY
from worker.sandbox import __main__ as program
from worker.sandbox import stand_ins
from worker.sandbox.core import Sandbox
from worker.sandbox.ledger import ZERO
from worker.sandbox.wire import Answer, Request
from worker.settings import Settings, load
from worker.settings.built_in import built_in_integrations, needed_variable

CALLBACK = "https://127.0.0.1"
VERIFIER = "made-up-verifier-made-up-verifier-made-up-verifier"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points of other packages, by key; modules of theirs go into `sys.modules`."""
    given: dict[str, str] = {}
    monkeypatch.setattr(
        stand_ins, "entry_points", lambda group: [EntryPoint(key, value, group) for key, value in given.items()]
    )
    package, beside = ModuleType("toy_package"), ModuleType("toy_package.stand_in")
    package.__path__ = []
    beside.STAND_IN = toy.Toy  # type: ignore[attr-defined]
    beside.__spec__ = sys.modules[__name__].__spec__
    monkeypatch.setitem(sys.modules, "toy_package", package)
    monkeypatch.setitem(sys.modules, "toy_package.stand_in", beside)
    return given


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(1, (toy.Toy,), {"toy": 2}, {})


# What is read from files has no server to stand in for.
CALLING = {key for key in built_in_integrations() if not REGISTRY[key].reads_files}


@pytest.mark.deep
def test_every_built_in_integration_that_makes_calls_has_a_stand_in() -> None:
    usable, problems = stand_ins.stand_ins()

    assert usable.keys() >= CALLING
    assert problems == []


def test_stand_in_of_another_package_is_found_by_its_entry_point(installed: dict[str, str]) -> None:
    installed["toy"] = "toy_package:Toy"

    assert stand_ins.stand_in("toy") is toy.Toy


def test_key_of_a_built_in_integration_cannot_be_taken(installed: dict[str, str]) -> None:
    key = built_in_integrations()[0]
    installed[key] = "toy_package:Toy"

    assert stand_ins.stand_in(key).key == key


def test_integration_without_a_stand_in_is_left_out(installed: dict[str, str]) -> None:
    installed["json"] = "json:Nothing"

    usable, problems = stand_ins.stand_ins()

    assert "json" not in usable
    assert problems == []
    with pytest.raises(KeyError):
        stand_ins.stand_in("json")


def test_stand_in_that_cannot_be_used_is_named_and_the_others_go_on(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed |= {"toy": "toy_package:Toy", "gone": "no_such_package.inner:Gone"}
    monkeypatch.delattr(sys.modules["toy_package.stand_in"], "STAND_IN")

    usable, problems = stand_ins.stand_ins()

    assert usable.keys() == CALLING
    assert [problem.partition(" ")[0] for problem in problems] == [
        "toy_package.stand_in",
        "no_such_package.inner.stand_in",
    ]


def test_variables_of_a_stand_in_are_those_of_its_integration() -> None:
    assert stand_ins.variables(toy.Toy, "http://sandbox") == {
        "TOY_CLIENT_ID": "toy-app",
        "TOY_CLIENT_SECRET": "toy-secret",
        "TOY_BASE_URL": "http://sandbox/toy",
    }


@pytest.mark.deep
def test_built_in_integrations_are_enabled_unless_some_are_named_or_a_registration_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs = {key: needed_variable(key) for key in built_in_integrations()}
    assert {key for key, variable in needs.items() if variable} == {"enable_banking", "snaptrade"}
    for variable in filter(None, needs.values()):
        monkeypatch.delenv(variable, raising=False)

    assert load(Settings).enabled_integrations == tuple(key for key, variable in needs.items() if variable is None)
    for variable in filter(None, needs.values()):
        monkeypatch.setenv(variable, "made-up")
    assert load(Settings).enabled_integrations == built_in_integrations()
    monkeypatch.setenv("INTEGRATIONS", "toy, other")

    assert load(Settings).enabled_integrations == ("toy", "other")


def test_logins_at_start_are_given_for_all_providers_or_for_one() -> None:
    assert program._population([], ["a", "b"]) == {"a": 2, "b": 2}
    assert program._population(["0", "b=3"], ["a", "b"]) == {"a": 0, "b": 3}


@pytest.mark.parametrize(
    ("text", "says"), [("a=x", "for example 3"), ("-1", "for example 3"), ("c=1", "no stand-in of c")]
)
def test_logins_that_cannot_be_made_are_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        program._population([text], ["a", "b"])


def _exchange(sandbox: Sandbox, asked: dict[str, str], **form: str) -> Answer:
    profile = sandbox.profiles["toy"]
    landed = profile.consent(sandbox.logins["toy-1"], asked)["callback_url"]
    given = {
        "grant_type": "authorization_code",
        "code": parse_qs(urlsplit(landed).query)["code"][0],
        "redirect_uri": CALLBACK,
        "client_id": "toy-app",
        "client_secret": "toy-secret",
    }
    return ask(profile, Request("POST", "/oauth/token", "", {}, urlencode(given | form).encode()))


def test_code_is_exchanged_with_the_verifier_of_its_challenge_alone(sandbox: Sandbox) -> None:
    asked = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}

    assert _exchange(sandbox, asked, code_verifier=VERIFIER).status == 200
    assert _exchange(sandbox, asked, code_verifier=VERIFIER + "x").status == 400
    assert _exchange(sandbox, asked).status == 400
    assert _exchange(sandbox, {}).status == 200


def test_challenge_that_is_not_hashed_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="code_challenge_method"):
        sandbox.profiles["toy"].consent(sandbox.logins["toy-1"], {"code_challenge": CHALLENGE})


def test_consent_for_another_application_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="client_id"):
        sandbox.profiles["toy"].consent(sandbox.logins["toy-1"], {"client_id": "another"})


@pytest.mark.deep
def test_small_stand_in_has_tokens_books_and_answers(sandbox: Sandbox) -> None:
    profile, login = sandbox.profiles["toy"], sandbox.logins["toy-1"]
    token = profile.mint(login)["access_token"]
    sandbox.advance(5)

    listed = msgspec.json.decode(ask(profile, get_request("/transactions", token)).body, type=list[dict[str, object]])
    accounts = msgspec.json.decode(ask(profile, get_request("/accounts", token)).body, type=list[dict[str, object]])

    assert token.startswith("toy-")
    assert len(listed) == len(login.ledger.transactions) > 300
    assert {row["account"] for row in listed} == {account["id"] for account in accounts}
    assert any(row.status == "pending" for row in login.ledger.transactions.values())
    for account in login.ledger.open_accounts():
        posted = [row.amount for row in account.by_time if row.status == "posted"]
        assert account.current == account.opening + sum(posted, ZERO)
    assert ask(profile, get_request("/nothing", token)).status == 404
    profile.revoke(login)
    assert ask(profile, get_request("/accounts", token)).status == 401
