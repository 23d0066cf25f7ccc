"""The journal: keeps answers that could not be stored, in Redis, or else in the spool, a directory of this host.

A rotated token exists only in its answer. An entry is the row that would have been stored: its tokens are ciphertexts
bound to provider and generation. Its name is the provider and the presented generation. It is stored only while the
stored generation is still the presented one, and deleted only after that commit.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import msgspec
from redis.exceptions import RedisError

from worker.crud.refresh import tokens
from worker.crud.refresh.records import NewToken, Settlement
from worker.errors import DashtamError, EncryptionError, Fenced, NotFound, Refused, Unavailable
from worker.process.logger import Logger
from worker.process.redis_names import JOURNAL
from worker.services.context import Context
from worker.services.host import UNREADABLE, spool_directory
from worker.services.refresh import grants
from worker.services.refresh.plan import unseal_answer

log = Logger(__name__)

T = TypeVar("T")

_KEEP = """
for i = 1, #ARGV, 3 do
    local there, is_readable, kept = redis.call('HGET', KEYS[1], ARGV[i]), false, nil
    if there then is_readable, kept = pcall(cjson.decode, there) end
    if not (is_readable and kept.issued_at > ARGV[i + 2]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
"""
"""The answer to a first call may arrive after the answer to its retry. The retry's token is the later one and stays."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(NewToken).decode


async def keep(runtime: Context, tokens: Sequence[NewToken]) -> None:
    """Keeps answers until they can be stored. All in one call, since each call to a Redis that hangs must time out.

    Raises:
        Unavailable: neither Redis nor the disk could store all of them.
    """
    entries = {_name(token): _encode(token) for token in tokens}
    arguments = [part for token in tokens for part in (_name(token), _encode(token), _issued(token))]
    try:
        await asyncio.to_thread(cast("Any", runtime.redis.eval), _KEEP, 1, JOURNAL, *arguments)
        place = "redis"
    except RedisError:
        try:
            await asyncio.to_thread(_spool, spool_directory(runtime), entries)
        except OSError as error:
            raise Unavailable(f"journal: Redis is away and the spool directory fails ({error.strerror})") from None
        place = "spool"
    for token in tokens:
        log.warning(
            "token_journaled",
            provider_id=str(token.provider_id),
            generation=token.generation + 1,
            place=place,
            next="stored as soon as Postgres answers",
        )


async def find(runtime: Context, provider_id: UUID, generation: int) -> NewToken | None:
    """The answer that was kept for a presentation of this generation; None if there is none.

    Raises:
        Unavailable: Redis cannot be asked, so it is unknown whether there is one.
    """
    return await asyncio.to_thread(_find, runtime, provider_id, generation)


async def entries(runtime: Context) -> list[NewToken]:
    """All entries that this host can read. Entries that cannot be decoded are logged and kept.

    Raises:
        Unavailable: Redis cannot be asked.
    """
    return await asyncio.to_thread(_entries, runtime)


async def apply(runtime: Context, token: NewToken, *, owner: UUID) -> None:
    """Stores an entry under a lease that the caller holds, then deletes it from the journal.

    Raises:
        EncryptionError: it does not belong to this provider; the entry is kept and nothing is stored.
        Fenced: another worker has the lease, or the generation has changed; the entry is kept. Or the entry is a new
            grant and the user has linked or unlinked since; then it is deleted.
        Unavailable: Postgres is out of reach; the entry is kept.
    """
    if token.new_grant:
        if not await _drain_grant(runtime, token, owner):
            raise Fenced("the user has linked or unlinked this login since; nothing was changed")
        return
    unseal_answer(runtime.encryption, token)
    if not await runtime.db(tokens.store, tokens=[token], owner=owner):
        raise Fenced("another worker has taken over; the answer is kept in the journal")
    await asyncio.to_thread(_remove, runtime, token)
    log.info("journal_entry_stored", provider_id=str(token.provider_id), generation=token.generation + 1)


async def drain(runtime: Context) -> int:
    """Stores the entries. Outdated ones are deleted; those whose token another worker has leased are kept.

    Returns:
        How many tokens were stored.

    Raises:
        Unavailable: Redis or Postgres is out of reach; the entries are kept.
    """
    return await _drain_all(runtime, await entries(runtime))


async def drain_spool(runtime: Context) -> None:
    """Stores the entries in this host's spool, for which Redis is not needed.

    Raises:
        Unavailable: Postgres is out of reach; the entries are kept.
    """
    waiting = await asyncio.to_thread(spooled, runtime)
    await _drain_all(runtime, await asyncio.to_thread(_newest_of, runtime, waiting))


def spooled(runtime: Context) -> list[NewToken]:
    """The entries in this host's spool."""
    directory = spool_directory(runtime)
    if not directory.is_dir():
        return []
    found = [_read_spooled(path) for path in directory.glob("*.json")]
    return [token for token in found if token is not None]


def is_anything_spooled(runtime: Context) -> bool:
    """Whether there are entries in this host's spool, read or not."""
    return any(spool_directory(runtime).glob("*.json"))


async def _drain_all(runtime: Context, waiting: Sequence[NewToken]) -> int:
    stored = 0
    for token in waiting:
        try:
            stored += await _drain(runtime, token)
        except Unavailable:
            raise
        except Exception as error:  # an error with one entry must not stop the others
            # The message of a foreign exception may quote the row, so only its class is logged.
            said = str(error) if isinstance(error, DashtamError) else type(error).__name__
            log.error("journal_entry_kept", provider_id=str(token.provider_id), error=said)
    return stored


async def _drain(runtime: Context, token: NewToken) -> bool:
    owner, ids = uuid4(), [token.provider_id]
    if token.new_grant:
        return await _drain_grant(runtime, token, owner)
    # The lease under which this entry was answered has no more use: its holder is the worker that wrote the entry.
    leased = await runtime.db(
        tokens.lease,
        ids=ids,
        owner=owner,
        seconds=runtime.settings.lease_seconds,
        active_only=False,
        held_by=token.lease_owner,
    )
    if leased and leased[0].generation == token.generation:
        try:
            await apply(runtime, token, owner=owner)
        except EncryptionError:
            await _release(runtime, token.provider_id, token.generation, owner)
            raise
        return True
    if leased:
        await _release(runtime, token.provider_id, leased[0].generation, owner)
    state = (await runtime.db(tokens.read, ids=ids)).get(token.provider_id)
    if state is None or state.generation is None or state.generation > token.generation:
        log.info("journal_entry_outdated", provider_id=str(token.provider_id), generation=token.generation + 1)
        await asyncio.to_thread(_remove, runtime, token)
    return False


async def _drain_grant(runtime: Context, token: NewToken, owner: UUID) -> bool:
    try:
        stored = await runtime.db(grants.store, encryption=runtime.encryption, token=token, owner=owner)
    except (NotFound, Refused) as error:
        log.warning("journal_entry_refused", provider_id=str(token.provider_id), error=str(error))
        stored = False
    if not stored:
        await runtime.db(grants.give_up, token=token)
    await asyncio.to_thread(_remove, runtime, token)
    return stored


async def _release(runtime: Context, provider_id: UUID, generation: int, owner: UUID) -> None:
    settlement = Settlement(provider_id=provider_id, generation=generation, keep_due=True)
    await runtime.db(tokens.settle, settlements=[settlement], owner=owner)


def _find(runtime: Context, provider_id: UUID, generation: int) -> NewToken | None:
    # The answer to a new consent takes precedence over an answer for the old grant.
    names = [_field(provider_id, generation, new_grant=new_grant) for new_grant in (True, False)]
    directory = spool_directory(runtime)
    found = [_read_spooled(directory / f"{name}.json") for name in names]
    try:
        kept = cast("list[bytes | None]", runtime.redis.hmget(JOURNAL, names))
    except RedisError:
        if not any(found):
            raise Unavailable("journal: Redis is away; an answer may be waiting in it") from None
        kept = []
    found += [_read(raw, "redis") for raw in kept if raw is not None]
    newest = {token.new_grant: token for token in _newest(found)}
    return newest.get(True) or newest.get(False)


def _entries(runtime: Context) -> list[NewToken]:
    try:
        kept = cast("dict[bytes, bytes]", runtime.redis.hgetall(JOURNAL))
    except RedisError:
        raise Unavailable("journal: Redis is away; its entries are kept there") from None
    return _newest([*spooled(runtime), *(_read(raw, "redis") for raw in kept.values())])


def _newest_of(runtime: Context, waiting: Sequence[NewToken]) -> list[NewToken]:
    """The same entries, each replaced by Redis's version if that one is later. Without Redis they stay as they are."""
    if not waiting:
        return []
    try:
        kept = cast("list[bytes | None]", runtime.redis.hmget(JOURNAL, [_name(token) for token in waiting]))
    except RedisError:
        kept = []
    return _newest([*waiting, *(_read(raw, "redis") for raw in kept if raw is not None)])


def _newest(found: Iterable[NewToken | None]) -> list[NewToken]:
    """The latest of the entries with the same name: there may be an answer to the first call and one to the retry."""
    newest: dict[str, NewToken] = {}
    for token in sorted((one for one in found if one is not None), key=lambda one: one.issued_at):
        newest[_name(token)] = token
    return list(newest.values())


def _remove(runtime: Context, token: NewToken) -> None:
    (spool_directory(runtime) / f"{_name(token)}.json").unlink(missing_ok=True)
    try:
        runtime.redis.hdel(JOURNAL, _name(token))
    except RedisError:
        log.warning("journal_entry_left", provider_id=str(token.provider_id), next="removed by the next drain")


def _read(raw: bytes, place: str) -> NewToken | None:
    try:
        return _decode(raw)
    except msgspec.MsgspecError:
        log.error("journal_entry_unreadable", place=place, kept="the entry", next="look at it, then remove it by hand")
        return None


def _issued(token: NewToken) -> str:
    return str(msgspec.to_builtins(token.issued_at))


def _name(token: NewToken) -> str:
    return _field(token.provider_id, token.generation, new_grant=token.new_grant)


def _field(provider_id: UUID, generation: int, *, new_grant: bool) -> str:
    return f"{provider_id}.{generation}" + (".grant" if new_grant else "")


def _read_spooled(path: Path) -> NewToken | None:
    """The entry in a file. A file that cannot be read is renamed, so that it does not delay the others."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:  # there was no such file, or it was stored and deleted just now
        return None
    except (OSError, msgspec.MsgspecError) as error:
        aside = path.with_suffix(UNREADABLE)
        with suppress(OSError):
            path.rename(aside)
        log.critical(
            "journal_entry_unreadable",
            file=str(path),
            error=type(error).__name__,
            kept=str(aside),
            next=f"make it readable for the worker, then: mv {aside} {path}",
        )
        return None


def _spool(directory: Path, entries: Mapping[str, bytes]) -> None:
    """Writes entries as files that only their owner can read. Each is synced to disk before it gets its final name."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, entry in entries.items():
        draft = directory / f".{uuid4().hex}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(entry)
                file.flush()
                os.fsync(file.fileno())
            there = _read_spooled(directory / f"{name}.json")
            if there is not None and there.issued_at > _decode(entry).issued_at:
                draft.unlink()  # the later answer stays, as in Redis
            else:
                draft.rename(directory / f"{name}.json")
        except OSError:
            draft.unlink(missing_ok=True)
            raise
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
