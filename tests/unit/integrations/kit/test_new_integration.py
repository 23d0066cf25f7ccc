"""A new integration works as it is written, and each check of the contract notices what it is there for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from worker.errors import ProviderError, Unsupported
from worker.integrations.kit import contract
from worker.integrations.kit.base import Caller, Page, Quota, RawRecord, SyncRequest, TokenAnswer
from worker.integrations.kit.contract import Subject
from worker.integrations.kit.new import KeyRefused, write_new
from worker.integrations.registry import REGISTRY
from worker.sandbox.stand_ins import stand_in


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The package that `dashtam integrations new toy` writes, imported."""
    folder = write_new("toy", tmp_path_factory.mktemp("new"), taken=frozenset())
    sys.path.insert(0, str(folder))
    try:
        package, beside = (importlib.import_module(name) for name in ("dashtam_toy", "dashtam_toy.stand_in"))
        yield SimpleNamespace(integration=package.Toy, stand_in=beside.STAND_IN, folder=folder)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.startswith("dashtam_toy")]:
            del sys.modules[name]


def missing(subject: Subject) -> dict[str, str]:
    """What each check that failed says."""
    return {result.check: result.missing for result in contract.run(subject) if result.missing}


@pytest.mark.deep
def test_new_integration_passes_every_check(toy: SimpleNamespace) -> None:
    assert missing(Subject(toy.integration, toy.stand_in)) == {}


def test_new_integration_is_small(toy: SimpleNamespace) -> None:
    package = toy.folder / "dashtam_toy"

    assert len((package / "__init__.py").read_text().splitlines()) <= 250
    assert len((package / "stand_in.py").read_text().splitlines()) <= 200


def test_new_stand_in_imports_nothing_of_the_integration(toy: SimpleNamespace) -> None:
    text = (toy.folder / "dashtam_toy" / "stand_in.py").read_text()

    assert "dashtam_toy" not in text
    assert "worker.integrations" not in text


def _with(integration: Any, **changes: Any) -> Any:
    return type(integration.__name__, (integration,), changes)


def _pages_changed(change: Any) -> Any:
    def wrap(base: Any) -> Any:
        async def pages(self: Any, request: SyncRequest) -> AsyncIterator[Page]:
            async for page in base.pages(self, request):
                yield change(page)

        return pages

    return wrap


def _negated(page: Page) -> Page:
    read = page.map_transaction

    def wrong(row: RawRecord) -> Any:
        record = read(row)  # type: ignore[misc]
        return msgspec.structs.replace(record, amount=-record.amount)

    if read is not None:
        page.map_transaction = wrong
    return page


def _numbered(page: Page) -> Page:
    page.accounts = [msgspec.structs.replace(account, mask="12345678") for account in page.accounts]
    return page


def _without_cursor(page: Page) -> Page:
    page.cursor = None
    return page


def _exchange(base: Any, *, times: int = 1, **values: Any) -> Any:
    async def exchange(integration: Any, caller: Caller, form: dict[str, str], *, now: datetime) -> TokenAnswer:
        for left in reversed(range(times)):
            try:
                return replace(await base.exchange(integration, caller, form, now=now), **values)
            except ProviderError:
                if not left:
                    raise
        raise AssertionError

    return exchange


async def _moving_refresh(self: Any, caller: Caller, refresh_token: str) -> TokenAnswer:
    return TokenAnswer("a", lifetime=timedelta(1), grant_expires_at=datetime.now().astimezone())


async def _unsupported_refresh(self: Any, caller: Caller, refresh_token: str) -> TokenAnswer:
    raise Unsupported("refresh")


SAYS = "it says what it is"
URL = "authorize url is there exactly where the user is redirected"
EXCHANGE = "exchange gives a token that its repr does not show"
REFRESH = "refresh is there exactly when the policy says so"
ENDED = "grant that its owner has ended asks for a new consent"
ONCE = "token call is never repeated"
RUN_OUT = "access token that has run out is told apart"
BUDGET = "budget is asked before each request on behalf of the caller"
AMOUNTS = "amounts are those of the books"
WORDS = "everything is mapped into the closed vocabulary"
CURSORS = "sync that is broken off after each page goes on from cursors alone"
AGAIN = "second sync from the cursors reads no less"

WRONG: list[tuple[str, Any]] = [
    (SAYS, lambda base: {"error_rules": ()}),
    (SAYS, lambda base: {"quotas": (Quota("world", 1, 1),)}),
    (SAYS, lambda base: {"key": "other"}),
    (URL, lambda base: {"authorize_url": lambda *a: "https://x/"}),
    (EXCHANGE, lambda base: {"exchange": _exchange(base, access_token="plain")}),
    (EXCHANGE, lambda base: {"exchange": _exchange(base, lifetime=None)}),
    (REFRESH, lambda base: {"refresh": _moving_refresh}),
    (REFRESH, lambda base: {"refresh": _unsupported_refresh}),
    (REFRESH, lambda base: {"refresh_policy": None}),
    (ENDED, lambda base: {"refresh": _unsupported_refresh}),
    (ONCE, lambda base: {"exchange": _exchange(base, times=2)}),
    (RUN_OUT, lambda base: {"error_rules": base.error_rules[1:]}),
    (BUDGET, lambda base: {"quotas": (Quota("app", 1, 1, endpoint="elsewhere"),)}),
    (AMOUNTS, lambda base: {"pages": _pages_changed(_negated)(base)}),
    (WORDS, lambda base: {"pages": _pages_changed(_numbered)(base)}),
    (CURSORS, lambda base: {"pages": _pages_changed(_without_cursor)(base)}),
    (AGAIN, lambda base: {"pages": _pages_changed(_without_cursor)(base)}),
]


@pytest.mark.parametrize(("check", "change"), WRONG, ids=[f"{n}: {check}" for n, (check, _) in enumerate(WRONG)])
def test_each_check_notices_what_it_is_there_for(toy: SimpleNamespace, check: str, change: Any) -> None:
    wrong = _with(toy.integration, **change(toy.integration))
    (this,) = (found for found in contract.CHECKS if contract.name_of(found) == check)

    with pytest.raises(AssertionError) as caught:
        this(Subject(wrong, toy.stand_in))

    assert str(caught.value), "it says what is missing"


@pytest.mark.deep
def test_number_of_an_account_in_a_record_is_noticed() -> None:
    subject = Subject(REGISTRY["schwab"], stand_in("schwab"))
    numbers = [account.number for account in subject.connected().login.ledger.accounts.values()]

    def showing(page: Page) -> Page:
        page.accounts = [msgspec.structs.replace(account, name=numbers[0]) for account in page.accounts]
        return page

    wrong = _with(subject.integration, pages=_pages_changed(showing)(subject.integration))

    assert missing(Subject(wrong, subject.stand_in)) == {
        "no full account number leaves the integration": "a full account number is in a record, a cursor or a problem"
    }


@pytest.mark.deep
@pytest.mark.parametrize(
    "key", ["", "1st", "two words", "class", "match-box", "Éa", "UPPER", "x" * 32, "a.b", "../up", "None"]
)
def test_key_that_is_no_name_writes_nothing(key: str, tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="nothing was written"):
        write_new(key, tmp_path, taken=frozenset())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["schwab", "kit", "registry", "mine"])
def test_key_that_exists_writes_nothing(key: str, tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="exists already; nothing was written"):
        write_new(key, tmp_path, taken=frozenset({"mine"}))

    assert list(tmp_path.iterdir()) == []


def test_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dashtam-toy").mkdir()

    with pytest.raises(KeyRefused, match="dashtam-toy exists already"):
        write_new("toy", tmp_path, taken=frozenset())

    assert list((tmp_path / "dashtam-toy").iterdir()) == []


def test_built_in_one_is_written_as_a_package_of_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.integrations.__path__", [str(tmp_path)])

    folder = write_new("toy", tmp_path, taken=frozenset())

    assert sorted(path.name for path in folder.iterdir()) == ["__init__.py", "integration.py", "stand_in.py"]
    assert folder == tmp_path / "toy"
