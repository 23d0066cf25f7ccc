"""Answers on the disk of one host, and what other hosts may do meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from fastapi.testclient import TestClient

from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.scripted import answer
from tests.support.waiting import wait_for
from worker.crud.refresh.records import NewToken
from worker.errors import Refused
from worker.integrations.kit.base import TokenAnswer
from worker.runtime import Runtime, use_runtime
from worker.services import host, keys
from worker.services.refresh import journal, spool
from worker.services.refresh.plan import seal_answer
from worker.services.refresh.results import Outcome
from worker.tasks import send as broker
from worker.tasks.accounts import sync_providers
from worker.tasks.tokens import refresh_providers
from worker.web.application import create_app


@pytest.fixture
def hosts(make_desk: MakeDesk, tmp_path: Path) -> tuple[Desk, Desk]:
    """Two hosts with homes of their own; what the first one answers is on its disk."""
    one, other = (make_desk(DASHTAM_HOME=str(tmp_path / name)) for name in ("one", "other"))
    return one, other


def _sealed(desk: Desk, id_: UUID, number: int = 2, *, later: timedelta = timedelta(0)) -> NewToken:
    return seal_answer(
        desk.runtime.encryption,
        desk.schwab.refresh_policy,
        answer(number),
        provider_id=id_,
        generation=1,
        issued_at=desk.now() + later,
    )


def _spool_one(desk: Desk, id_: UUID) -> Path:
    """An attempt of this host's, whose answer is on its disk."""
    desk.leave_behind(id_)
    desk.rows("UPDATE token_refreshes SET spool_id = :spool", spool=spool.identity(desk.runtime))
    token = _sealed(desk, id_)
    directory = host.spool_directory(desk.runtime)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{id_}.1.json"
    path.write_bytes(journal._encode(token))
    return path


def _settle(desk: Desk) -> None:
    desk.runtime.spool_told_at = float("-inf")
    desk.runtime.run(spool.settle(desk.runtime))


def test_host_stores_what_is_on_its_disk_before_it_presents_anything(hosts: tuple[Desk, Desk]) -> None:
    one, _ = hosts
    id_ = one.link()
    path = _spool_one(one, id_)

    outcomes = one.refresh(id_)

    assert outcomes == {id_: Outcome.FRESH}
    assert one.plain(id_, "refresh") == "refresh-2"
    assert (one.schwab.presented, path.exists()) == ([], False)


@pytest.mark.deep
@pytest.mark.parametrize("task", [sync_providers, refresh_providers])
def test_task_of_any_queue_tells_first_what_is_on_this_disk(hosts: tuple[Desk, Desk], task: Callable[..., Any]) -> None:
    one, _ = hosts
    id_ = one.link()
    path = _spool_one(one, id_)

    with use_runtime(one.runtime):
        task([])

    assert one.plain(id_, "refresh") == "refresh-2"
    assert not path.exists()


@pytest.mark.deep
def test_http_api_stores_what_is_on_its_disk_without_any_task(hosts: tuple[Desk, Desk]) -> None:
    one, _ = hosts
    id_ = one.link()
    path = _spool_one(one, id_)

    with TestClient(create_app(one.runtime, send=broker.send, transport=broker)):
        wait_for(lambda: not path.exists(), what="the answer in its place")

    assert one.plain(id_, "refresh") == "refresh-2"


@pytest.mark.deep
def test_long_batch_tells_while_it_goes_on_what_is_on_this_disk(make_desk: MakeDesk, tmp_path: Path) -> None:
    one = make_desk(DASHTAM_HOME=str(tmp_path / "one"), refresh_concurrency=1)
    spooled, other = one.link(), one.link()
    _settle(one)

    async def long_call(token: str) -> TokenAnswer:
        await asyncio.to_thread(_spool_one, one, spooled)
        one.runtime.spool_told_at = float("-inf")
        return answer()

    one.schwab.script = [long_call]
    third = one.link()
    one.refresh(other, third)

    assert one.plain(spooled, "refresh") == "refresh-2"


@pytest.mark.deep
def test_other_host_waits_until_the_first_has_told_and_presents_nothing(hosts: tuple[Desk, Desk]) -> None:
    one, other = hosts
    id_ = one.link()
    _settle(one)
    _spool_one(one, id_)

    waits = other.refresh(id_)
    _settle(one)
    outcomes = other.refresh(id_)

    assert waits == {id_: Outcome.DEFERRED}
    assert outcomes == {id_: Outcome.FRESH}
    assert other.schwab.presented == []
    assert other.plain(id_, "refresh") == "refresh-2"


@pytest.mark.deep
def test_other_host_waits_for_an_answer_that_is_known_to_be_on_the_first_one_s_disk(
    hosts: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = hosts
    id_ = one.link()
    _spool_one(one, id_)

    async def nothing(_: Runtime) -> None:
        return None

    with monkeypatch.context() as patch:
        patch.setattr(journal, "drain_spool", nothing)
        _settle(one)
    one.rows("UPDATE token_refreshes SET started_at = started_at - interval '1 hour'")

    assert other.refresh(id_) == {id_: Outcome.DEFERRED}
    one.rows("UPDATE spools SET seen_at = seen_at - interval '11 minutes'")  # its machine has burnt down
    assert other.refresh(id_) == {id_: Outcome.REFRESHED}
    assert other.schwab.presented == ["refresh-1"]


def test_other_host_does_not_wait_for_one_that_has_told_since_or_that_stays_silent(hosts: tuple[Desk, Desk]) -> None:
    one, other = hosts
    ids = [one.link(refresh_token=f"{name}-1") for name in "ab"]
    _settle(one)
    for id_ in ids:
        one.leave_behind(id_)
    one.rows("UPDATE token_refreshes SET spool_id = :spool", spool=spool.identity(one.runtime))

    assert other.refresh(ids[0]) == {ids[0]: Outcome.DEFERRED}
    one.rows("UPDATE spools SET asked_at = asked_at - interval '31 s', seen_at = seen_at - interval '1 min'")
    assert other.refresh(ids[0]) == {ids[0]: Outcome.REFRESHED}

    _settle(one)
    one.rows("UPDATE token_refreshes SET started_at = started_at - interval '1 hour'")
    assert other.refresh(ids[1]) == {ids[1]: Outcome.REFRESHED}


@pytest.mark.deep
def test_key_that_an_answer_on_another_host_s_disk_needs_is_not_retired(hosts: tuple[Desk, Desk]) -> None:
    one, other = hosts
    id_ = one.link()
    path = _spool_one(one, id_)
    entry = json.loads(path.read_bytes()) | {"key_id": "old"}
    path.write_text(json.dumps(entry))
    _settle(one)

    with pytest.raises(Refused, match="1 journal entries"):
        other.runtime.run(keys.require_retirable(other.runtime, "old"))


@pytest.mark.deep
def test_spool_that_cannot_be_told_for_any_reason_holds_up_no_refresh(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = desk.link()

    def fail(*_: object, **__: object) -> None:
        raise PermissionError("somebody's directory")

    monkeypatch.setattr(journal, "spooled", fail)
    with structlog.testing.capture_logs() as logs:
        assert desk.refresh(id_) == {id_: Outcome.REFRESHED}

    assert [entry["error"] for entry in logs if entry["event"] == "spool_untold"] == ["PermissionError"]


@pytest.mark.deep
@pytest.mark.parametrize("damage", ["not an entry", "a directory"])
def test_file_that_cannot_be_read_is_set_aside_and_holds_up_no_other(hosts: tuple[Desk, Desk], damage: str) -> None:
    one, _ = hosts
    bad, good = one.link(), one.link()
    broken, _ = _spool_one(one, bad), _spool_one(one, good)
    if damage == "a directory":
        broken.unlink()
        broken.mkdir()
    else:
        broken.write_bytes(b"{")

    with structlog.testing.capture_logs() as logs:
        assert one.runtime.run(journal.drain(one.runtime)) == 1

    aside = broken.with_suffix(".unreadable")
    (said,) = [entry for entry in logs if entry["log_level"] == "critical"]
    assert said["next"].endswith(f"mv {aside} {broken}")
    assert aside.exists()
    assert one.plain(good, "refresh") == "refresh-2"
    finding = one.runtime.run(host.spool(one.runtime, None))
    assert (finding.ok, finding.mend.endswith(f"mv {aside} {broken}")) == (False, True)


@pytest.mark.deep
@pytest.mark.parametrize("place", ["redis", "disk"])
def test_late_first_answer_does_not_replace_that_of_the_retry(desk: Desk, place: str) -> None:
    id_ = desk.link()
    first, retry = _sealed(desk, id_, 2), _sealed(desk, id_, 3, later=timedelta(seconds=40))

    def keep(token: NewToken) -> None:
        if place == "redis":
            desk.runtime.run(journal.keep(desk.runtime, [token]))
        else:
            journal._spool(host.spool_directory(desk.runtime), {journal._name(token): journal._encode(token)})

    for token in (retry, first):
        keep(token)

    assert desk.runtime.run(journal.drain(desk.runtime)) == 1
    assert desk.plain(id_, "refresh") == "refresh-3"


@pytest.mark.deep
@pytest.mark.parametrize("drain", ["all", "disk", "find"])
@pytest.mark.parametrize("later_in", ["redis", "disk"])
def test_later_of_two_answers_counts_wherever_each_of_them_waits(desk: Desk, drain: str, later_in: str) -> None:
    id_ = desk.link()
    answers = [_sealed(desk, id_, 2), _sealed(desk, id_, 3, later=timedelta(seconds=40))]
    in_redis, on_disk = reversed(answers) if later_in == "redis" else answers
    desk.runtime.run(journal.keep(desk.runtime, [in_redis]))
    journal._spool(host.spool_directory(desk.runtime), {journal._name(on_disk): journal._encode(on_disk)})

    if drain == "find":
        assert desk.runtime.run(journal.find(desk.runtime, id_, 1)) == answers[1]
        return
    desk.runtime.run((journal.drain if drain == "all" else journal.drain_spool)(desk.runtime))

    assert desk.plain(id_, "refresh") == "refresh-3"
    assert desk.runtime.run(journal.entries(desk.runtime)) == []


@pytest.mark.deep
def test_attempt_names_the_disk_on_which_its_answer_would_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = desk.link()

    desk.refresh(id_)

    assert desk.attempts(id_)[0]["spool_id"] == spool.identity(desk.runtime) is not None
