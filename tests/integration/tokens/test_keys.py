from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import signals

from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.environment import new_keys
from tests.support.scripted import answer
from worker import app
from worker.cli.exits import ExitCode
from worker.crud import keys as key_rows
from worker.errors import ConfigurationError, Refused, Unavailable
from worker.integrations.kit.base import TokenAnswer
from worker.services import keys
from worker.services.refresh import journal
from worker.services.refresh.results import Outcome
from worker.telemetry import metric_files

OLD, NEW = new_keys("k1"), new_keys("k2")
Desks = Callable[[str], Desk]


@pytest.fixture
def desk_with(make_desk: MakeDesk) -> Desks:
    return lambda encryption_keys: make_desk(encryption_keys=encryption_keys)


def _status(desk: Desk) -> dict[str, tuple[bool, bool, int, int]]:
    found = desk.runtime.run(keys.status(desk.runtime))
    return {use.key_id: (use.configured, use.writing, use.tokens, use.journal) for use in found}


@pytest.mark.deep
def test_all_tokens_are_written_anew_in_batches_and_stay_usable(desk_with: Desks) -> None:
    before = desk_with(OLD)
    ids = [before.link(refresh_token=f"p{n}-1") for n in range(5)] + [before.link(refresh_token=None)]
    desk = desk_with(f"{NEW},{OLD}")

    done = desk.runtime.run(keys.reencrypt(desk.runtime, batch_size=2))

    assert (done.done, done.unreadable, done.left) == (6, [], 0)
    assert {desk.token(id_)["key_id"] for id_ in ids} == {"k2"}
    assert desk_with(NEW).refresh(*ids[:5]) == dict.fromkeys(ids[:5], Outcome.REFRESHED)


@pytest.mark.deep
def test_rotation_that_broke_off_goes_on(desk_with: Desks, monkeypatch: pytest.MonkeyPatch) -> None:
    before = desk_with(OLD)
    for _ in range(4):
        before.link()
    desk = desk_with(f"{NEW},{OLD}")
    replace, calls = key_rows.replace_ciphertexts, []

    def break_off(session: Any, **values: Any) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise Unavailable("Postgres: gone")
        return replace(session, **values)

    with monkeypatch.context() as patched:
        patched.setattr(key_rows, "replace_ciphertexts", break_off)
        with pytest.raises(Unavailable):
            desk.runtime.run(keys.reencrypt(desk.runtime, batch_size=2))

    assert desk.runtime.run(keys.reencrypt(desk.runtime, batch_size=2)).done == 2


@pytest.mark.deep
def test_rotation_never_overwrites_a_refresh_that_came_between(
    desk_with: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = desk_with(OLD)
    id_ = before.link()
    desk = desk_with(f"{NEW},{OLD}")
    replace = key_rows.replace_ciphertexts

    def refreshed_meanwhile(session: Any, **values: Any) -> int:
        desk.rows(
            "UPDATE provider_tokens SET generation = 2, refresh_token = :t WHERE provider_id = :id",
            id=id_,
            t=before.runtime.encryption.seal("newer", provider_id=id_, kind="refresh", generation=2),
        )
        return replace(session, **values)

    monkeypatch.setattr(key_rows, "replace_ciphertexts", refreshed_meanwhile)

    done = desk.runtime.run(keys.reencrypt(desk.runtime))

    assert (done.done, done.left) == (0, 1)
    assert desk.plain(id_, "refresh") == "newer"


@pytest.mark.deep
def test_refresh_under_way_may_store_after_its_row_was_written_anew(desk_with: Desks) -> None:
    desk_with(OLD).link()
    desk = desk_with(f"{NEW},{OLD}")
    (id_,) = [row["id"] for row in desk.rows("SELECT id FROM providers")]

    async def rotate_keys(token: str) -> TokenAnswer:
        await keys.reencrypt(desk.runtime)
        return answer()

    desk.schwab.script = [rotate_keys]

    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}
    assert desk.plain(id_, "refresh") == "refresh-2"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("not_restarted", "restarted"),
    [(OLD, f"{OLD},{NEW}"), (f"{OLD},{NEW}", f"{NEW},{OLD}")],
    ids=["new_key_behind", "new_key_in_front"],
)
def test_in_both_steps_of_a_rotation_each_process_refreshes_what_the_other_wrote(
    desk_with: Desks, not_restarted: str, restarted: str
) -> None:
    before, after = desk_with(not_restarted), desk_with(restarted)
    id_ = before.link()

    outcomes = [desk.refresh(id_, force=True)[id_] for desk in (after, before, after)]

    assert outcomes == [Outcome.REFRESHED] * 3


@pytest.mark.deep
def test_new_key_put_in_front_at_once_is_unreadable_to_processes_that_have_not_restarted(desk_with: Desks) -> None:
    before, after = desk_with(OLD), desk_with(f"{NEW},{OLD}")
    id_ = before.link()

    assert after.refresh(id_, force=True) == {id_: Outcome.REFRESHED}
    assert before.refresh(id_, force=True) == {id_: Outcome.FAILED}
    assert after.refresh(id_, force=True) == {id_: Outcome.REFRESHED}


@pytest.mark.deep
def test_token_that_no_key_opens_is_named_and_left(desk_with: Desks) -> None:
    id_ = desk_with(new_keys("k0")).link()
    desk = desk_with(f"{NEW},{OLD}")

    done = desk.runtime.run(keys.reencrypt(desk.runtime))

    assert (done.done, done.unreadable, done.left) == (0, [id_], 1)
    assert desk.token(id_)["key_id"] == "k0"


@pytest.mark.deep
def test_status_counts_tokens_and_journal_entries_per_key(desk_with: Desks) -> None:
    before = desk_with(OLD)
    id_ = before.link()

    def lose_lease(token: str) -> TokenAnswer:
        before.rows("UPDATE provider_tokens SET lease_owner = gen_random_uuid()")
        return answer()

    before.schwab.script = [lose_lease]
    before.refresh(id_)

    assert _status(desk_with(f"{NEW},{OLD}")) == {"k2": (True, True, 0, 0), "k1": (True, False, 1, 1)}
    assert _status(desk_with(NEW)) == {"k2": (True, True, 0, 0), "k1": (False, False, 1, 1)}


@pytest.mark.deep
def test_key_in_use_cannot_be_retired(desk_with: Desks) -> None:
    desk_with(OLD).link()
    desk = desk_with(f"{NEW},{OLD}")

    with pytest.raises(Refused, match="1 tokens and 0 journal"):
        desk.runtime.run(keys.require_retirable(desk.runtime, "k1"))
    with pytest.raises(Refused, match="is the active key"):
        desk.runtime.run(keys.require_retirable(desk.runtime, "k2"))
    desk.runtime.run(keys.reencrypt(desk.runtime))
    desk.runtime.run(keys.require_retirable(desk.runtime, "k1"))


def test_key_cannot_be_retired_while_the_journal_cannot_be_asked(make_desk: MakeDesk) -> None:
    desk = make_desk(encryption_keys=f"{NEW},{OLD}", redis_url="redis://127.0.0.1:1/0")

    with pytest.raises(Unavailable, match="journal"):
        desk.runtime.run(keys.require_retirable(desk.runtime, "k1"))


@pytest.mark.deep
def test_key_withdrawn_too_early_refuses_startup_by_its_id(desk_with: Desks) -> None:
    desk_with(OLD).link()

    desk = desk_with(NEW)

    with pytest.raises(ConfigurationError, match="k1") as caught:
        desk.runtime.run(keys.require_configured(desk.runtime))
    assert OLD.partition(":")[2] not in str(caught.value)


@pytest.fixture
def begin_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[Desk], None]:
    """What Celery does at the beginning of a worker, with the desk's configuration."""

    def begin(desk: Desk) -> None:
        monkeypatch.setattr(app, "get_settings", lambda: desk.runtime.settings)
        monkeypatch.setattr(metric_files, "share_with_exporter", lambda _: None)
        signals.worker_init.send(sender="worker")

    return begin


@pytest.mark.deep
def test_worker_does_not_start_without_a_key_in_use(
    desk_with: Desks, begin_worker: Callable[[Desk], None], capsys: pytest.CaptureFixture[str]
) -> None:
    desk_with(OLD).link()

    with pytest.raises(SystemExit) as ended:
        begin_worker(desk_with(NEW))

    assert ended.value.code == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert said == "error: ENCRYPTION_KEYS: stored tokens need the key k1; put it back, behind the writing key\n"


@pytest.mark.deep
@pytest.mark.parametrize("away", [{}, {"database_url": "postgresql://nobody@127.0.0.1:1/nowhere"}], ids=["", "away"])
def test_worker_starts_with_its_keys_and_while_nobody_can_say_which_it_needs(
    make_desk: MakeDesk, begin_worker: Callable[[Desk], None], away: dict[str, str]
) -> None:
    make_desk(encryption_keys=OLD).link()

    begin_worker(make_desk(encryption_keys=f"{NEW},{OLD}", **away))


@pytest.mark.deep
def test_configured_keys_pass(desk_with: Desks) -> None:
    desk = desk_with(OLD)
    desk.link()

    desk.runtime.run(keys.require_configured(desk.runtime))
    assert desk.runtime.run(journal.drain(desk.runtime)) == 0
