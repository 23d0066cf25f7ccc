"""What rotation decides, with tables and a journal that are in memory; the integration tests have real ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.support.environment import new_keys
from worker.crud import keys as key_rows
from worker.crud.keys import Ciphertexts
from worker.crud.refresh import spools
from worker.crud.refresh.records import NewToken
from worker.errors import ConfigurationError, Refused
from worker.runtime import Runtime
from worker.services import keys
from worker.services.encryption import EncryptionService

K1, K2 = new_keys("k1"), new_keys("k2")
OLD, NEW = EncryptionService(K1), EncryptionService(f"{K2},{K1}")


class _Stored:
    """The parts of a runtime that rotation uses: `tokens` are the rows, `waiting` the journal's."""

    def __init__(
        self, encryption: EncryptionService, tokens: list[Ciphertexts], waiting: list[str], home: Path
    ) -> None:
        self.encryption = encryption
        self.tokens = {token.id: token for token in tokens}
        self.reads: list[int] = []
        entries = [_entry(number, key_id) for number, key_id in enumerate(waiting)]
        self.redis = SimpleNamespace(hgetall=lambda name: dict(enumerate(entries)))
        configured = K1 if encryption is OLD else f"{K2},{K1}"
        self.settings = SimpleNamespace(home=home, encryption_keys=SecretStr(configured))
        self.spool_id = UUID(int=1)

    async def db(self, step: Callable[..., Any], **values: Any) -> Any:
        steps: dict[Callable[..., Any], Callable[..., Any]] = {
            key_rows.count_by_key: self._count,
            key_rows.read_written_by_others: self._read,
            key_rows.replace_ciphertexts: self._replace,
            spools.count_by_key: lambda but: {},
        }
        return steps[step](**values)

    def _count(self) -> dict[str, int]:
        # As from a database: equal to the configured ids, not the same objects.
        return dict(Counter(token.key_id.encode().decode() for token in self.tokens.values()))

    def _read(self, *, table: object, key_id: str, after: UUID, limit: int) -> list[Ciphertexts]:
        if table is not key_rows.TABLES[0]:
            return []
        others = [token for id_, token in sorted(self.tokens.items()) if token.key_id != key_id and id_ > after]
        self.reads.append(len(others[:limit]))
        return others[:limit]

    def _replace(self, *, table: object, rows: list[Ciphertexts], key_id: str) -> int:
        for row in rows:
            self.tokens[row.id] = msgspec.structs.replace(row, key_id=key_id)
        return len(rows)


def _entry(number: int, key_id: str) -> bytes:
    fields = {"provider_id": UUID(int=number), "generation": 1, "issued_at": "2025-03-14T15:00:00Z", "key_id": key_id}
    return msgspec.json.encode(fields | {"access_token": "ciphertext", "refresh_token": None})


def _token(number: int, *, by: EncryptionService = OLD, refresh: bool = True) -> Ciphertexts:
    id_ = UUID(int=number)
    return Ciphertexts(
        id=id_,
        provider_id=id_,
        generation=3,
        key_id=by.key_id,
        access_token=by.seal(f"access-{number}", provider_id=id_, kind="access", generation=3),
        refresh_token=by.seal(f"refresh-{number}", provider_id=id_, kind="refresh", generation=3) if refresh else None,
    )


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Any]:
    def make(*tokens: Ciphertexts, waiting: tuple[str, ...] = (), encryption: EncryptionService = NEW) -> Any:
        return _Stored(encryption, list(tokens), list(waiting), tmp_path)

    return make


Make = Callable[..., Any]


def _run(work: Any) -> Any:
    """Runs a coroutine that waits for threads only."""
    return asyncio.run(work)


def _status(runtime: Any) -> dict[str, keys.KeyUse]:
    return {use.key_id: use for use in _run(keys.status(cast("Runtime", runtime)))}


def test_journal_of_the_stand_in_is_what_the_journal_writes() -> None:
    assert msgspec.json.decode(_entry(1, "k1"), type=NewToken).key_id == "k1"


def test_status_lists_the_writing_key_first_then_configured_then_missing_ones(stored: Make) -> None:
    k9, k0 = EncryptionService(new_keys("k9")), EncryptionService(new_keys("k0"))
    tokens = _token(1, by=k9), _token(2), _token(3), _token(4, by=k0)

    found = _status(stored(*tokens, waiting=("a0", "k1", "k1", "k1")))

    assert list(found) == ["k2", "k1", "k0", "k9", "a0"]
    assert [use.configured for use in found.values()] == [True, True, False, False, False]
    assert [use.writing for use in found.values()] == [True, False, False, False, False]
    assert [use.tokens for use in found.values()] == [0, 2, 1, 1, 0]
    assert [use.journal for use in found.values()] == [0, 3, 0, 0, 1]


@pytest.mark.parametrize(
    ("writing", "tokens", "journal", "in_use"),
    [(True, 0, 0, True), (False, 1, 0, True), (False, 0, 1, True), (False, 0, 0, False)],
    ids=["it_writes", "a_token", "a_journal_entry", "nothing"],
)
def test_key_is_in_use_while_it_writes_or_something_is_left(
    writing: bool, tokens: int, journal: int, in_use: bool
) -> None:
    use = keys.KeyUse(key_id="k1", configured=True, writing=writing, tokens=tokens, journal=journal)

    assert use.in_use is in_use


def test_rotation_writes_all_tokens_anew_in_batches_and_keeps_their_values(stored: Make) -> None:
    runtime = stored(*(_token(number) for number in range(1, 6)), _token(6, refresh=False), _token(7, by=NEW))

    done = _run(keys.reencrypt(runtime, batch_size=2))

    assert done == keys.Reencrypted(key_id=NEW.key_id, done=6, unreadable=[], left=0)
    assert runtime.reads == [2, 2, 2, 0]
    only_new = EncryptionService(K2)
    for number, token in enumerate(runtime.tokens.values(), start=1):
        binding = {"provider_id": UUID(int=number), "generation": 3, "key_id": "k2"}
        assert only_new.unseal(token.access_token, kind="access", **binding) == f"access-{number}"
        if number != 6:
            assert only_new.unseal(token.refresh_token, kind="refresh", **binding) == f"refresh-{number}"
    assert runtime.tokens[UUID(int=6)].refresh_token is None


@pytest.mark.deep
def test_rotation_reads_five_hundred_tokens_at_a_time(stored: Make) -> None:
    token = _token(1)
    rows = [msgspec.structs.replace(token, id=UUID(int=number)) for number in range(1, 503)]
    runtime = stored(*rows)

    _run(keys.reencrypt(runtime))

    assert runtime.reads == [500, 2, 0]


def test_rotation_names_what_no_key_opens_logs_it_and_goes_on(stored: Make) -> None:
    k9, k0 = EncryptionService(new_keys("k9")), EncryptionService(new_keys("k0"))
    runtime = stored(_token(1), _token(2, by=k9), _token(3, by=k0))

    with capture_logs() as logs:
        done = _run(keys.reencrypt(runtime, batch_size=2))

    assert done == keys.Reencrypted(key_id=NEW.key_id, done=1, unreadable=[UUID(int=2), UUID(int=3)], left=2)
    assert runtime.tokens[UUID(int=2)].key_id == "k9"
    assert [(log["provider_id"], log["key_id"]) for log in logs if log["event"] == "token_unreadable"] == [
        (str(UUID(int=2)), "k9"),
        (str(UUID(int=3)), "k0"),
    ]
    assert {"event": "keys_reencrypted", "key_id": "k2", "done": 1, "unreadable": 2, "left": 2}.items() <= logs[
        -1
    ].items()


def test_key_that_writes_cannot_be_retired(stored: Make) -> None:
    with pytest.raises(Refused, match="key k2 is the active key and was kept; add a new one in front"):
        _run(keys.require_retirable(stored(), "k2"))


def test_key_that_something_needs_cannot_be_retired_and_the_refusal_counts_it(stored: Make) -> None:
    runtime = stored(_token(1), _token(2), waiting=("k1",))

    with pytest.raises(Refused, match="key k1 cannot be retired: 2 tokens and 1 journal entries need it"):
        _run(keys.require_retirable(runtime, "k1"))


def test_key_that_nothing_needs_may_be_retired_while_others_are_in_use(stored: Make) -> None:
    runtime = stored(_token(1, by=NEW), _token(2, by=EncryptionService(new_keys("k0"))), waiting=("k2",))

    _run(keys.require_retirable(runtime, "k1"))


def test_missing_keys_refuse_startup_all_by_name(stored: Make) -> None:
    others = [EncryptionService(new_keys(name)) for name in ("k9", "k0")]
    runtime = stored(_token(1), *(_token(number, by=by) for number, by in enumerate(others, start=2)))

    with pytest.raises(ConfigurationError, match="need the key k0, k9; put it back, behind the writing key"):
        _run(keys.require_configured(runtime))


def test_configured_keys_start(stored: Make) -> None:
    _run(keys.require_configured(stored(_token(1), _token(2, by=NEW))))


@pytest.mark.parametrize(
    ("configured", "free"),
    [("", "k1"), (K1, "k2"), (K2, "k1"), (f"{K2},{K1}", "k3"), (new_keys("other"), "k1")],
    ids=["none", "the first", "the second", "both", "another name"],
)
def test_new_key_gets_the_first_id_that_is_free(monkeypatch: pytest.MonkeyPatch, configured: str, free: str) -> None:
    monkeypatch.setattr(
        keys,
        "get_settings",
        lambda: SimpleNamespace(encryption_keys=SimpleNamespace(get_secret_value=lambda: configured)),
    )

    assert keys.free_id() == free


def test_new_key_gets_the_first_id_where_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete() -> Any:
        raise ConfigurationError("ENCRYPTION_KEYS: is required")

    monkeypatch.setattr(keys, "get_settings", incomplete)

    assert keys.free_id() == "k1"
