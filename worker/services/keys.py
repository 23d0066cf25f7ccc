"""Rotation of encryption keys while the workers run.

Add the new key at the end of `ENCRYPTION_KEYS` and restart all processes, so that all can decrypt with it. Then move it
to the front and restart again. Run `reencrypt`. Remove the old key when `status` shows that nothing is encrypted with
it. A worker refuses to start without a key that is still in use.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from worker.crud import keys
from worker.crud.keys import Ciphertexts
from worker.errors import BadArgument, ConfigurationError, EncryptionError, Refused
from worker.process.logger import Logger
from worker.services.context import Context
from worker.settings import get_settings
from worker.settings.keys import parse_keys

log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How much is encrypted with one key.

    Attributes:
        configured: it is in `ENCRYPTION_KEYS`.
        writing: it is the first one there, so it encrypts.
        tokens: number of stored tokens that are encrypted with it.
        journal: number of waiting answers that are encrypted with it, in the journal and, as last reported, in the
            spools of other hosts.
    """

    key_id: str
    configured: bool
    writing: bool
    tokens: int
    journal: int

    @property
    def in_use(self) -> bool:
        """Whether something could no longer be decrypted if the key were removed."""
        return self.writing or self.tokens > 0 or self.journal > 0


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """Result of one call of `reencrypt`.

    Attributes:
        key_id: id of the key that encrypts now.
        done: number of tokens that were encrypted again.
        unreadable: providers whose token no configured key decrypts; left unchanged.
        left: number of tokens that are still encrypted with other keys, including the unreadable ones.
    """

    key_id: str
    done: int
    unreadable: list[UUID]
    left: int


def free_id() -> str:
    """The first of k1, k2, … that is not the id of a configured key. Works also when no key is configured."""
    try:
        taken = parse_keys(get_settings().encryption_keys.get_secret_value())
    except ConfigurationError:
        taken = {}
    return next(key_id for number in count(1) if (key_id := f"k{number}") not in taken)


def configured(runtime: Context) -> tuple[str, ...]:
    """The ids of the configured keys, first the one that encrypts."""
    return tuple(parse_keys(runtime.settings.encryption_keys.get_secret_value()))


async def status(runtime: Context) -> list[KeyUse]:
    """All keys that are configured or in use, first the one that encrypts.

    Raises:
        Unavailable: Postgres or Redis is out of reach, so the counts would be wrong.
    """
    # These take cryptography and the tables of tokens; `require_configured`, which `dashtam status` asks, does not.
    from worker.crud.refresh import spools
    from worker.services.refresh import journal, spool

    stored = await runtime.db(keys.count_by_key)
    waiting = Counter(token.key_id for token in await journal.entries(runtime))
    waiting.update(await runtime.db(spools.count_by_key, but=spool.identity(runtime)))
    configured = runtime.encryption.key_ids
    return [
        KeyUse(
            key_id=key_id,
            configured=key_id in configured,
            writing=key_id == runtime.encryption.key_id,
            tokens=stored.get(key_id, 0),
            journal=waiting[key_id],
        )
        for key_id in dict.fromkeys([*configured, *sorted(stored), *sorted(waiting)])
    ]


async def reencrypt(runtime: Context, *, batch_size: int = 500) -> Reencrypted:
    """Encrypts all tokens with the first key, in batches. It may be stopped and started again at any time.

    Refreshes continue meanwhile: a token that one of them stores is never overwritten.

    Raises:
        Unavailable: Postgres is out of reach; the batches that are done stay done.
    """
    writing, done, unreadable = runtime.encryption.key_id, 0, list[UUID]()
    for table in keys.TABLES:
        after, read = UUID(int=0), keys.read_written_by_others
        while rows := await runtime.db(read, table=table, key_id=writing, after=after, limit=batch_size):
            after = rows[-1].id
            renewed, failed = await asyncio.to_thread(_renew, runtime, rows, table.kinds)
            unreadable += failed
            done += await runtime.db(keys.replace_ciphertexts, table=table, rows=renewed, key_id=writing)
    stored = await runtime.db(keys.count_by_key)
    left = sum(count for key_id, count in stored.items() if key_id != writing)
    log.info("keys_reencrypted", key_id=writing, done=done, unreadable=len(unreadable), left=left)
    return Reencrypted(runtime.encryption.key_id, done, unreadable, left)


async def require_retirable(runtime: Context, key_id: str) -> None:
    """Checks that a key may be removed from `ENCRYPTION_KEYS`.

    Raises:
        BadArgument: no key has this name.
        Refused: it is the key that encrypts, or something is still encrypted with it.
        Unavailable: Postgres or Redis is out of reach, so it cannot be known now.
    """
    uses = {use.key_id: use for use in await status(runtime)}
    use = uses.get(key_id)
    if use is None:
        raise BadArgument(f"no key is named {key_id!r}; `dashtam keys status` lists them")
    if use.writing:
        raise Refused(
            f"key {key_id} is the active key and was kept; add a new one in front of it in ENCRYPTION_KEYS first: "
            "dashtam keys generate"
        )
    if use.in_use:
        why = f"{use.tokens} tokens and {use.journal} journal entries need it"
        raise Refused(f"key {key_id} cannot be retired: {why}; run: dashtam keys rotate")


async def require_configured(runtime: Context) -> None:
    """Checks at startup that every key in use is configured.

    Raises:
        ConfigurationError: keys are missing; the message has their ids.
        Unavailable: Postgres is out of reach.
    """
    missing = sorted(set(await runtime.db(keys.count_by_key)) - set(configured(runtime)))
    if missing:
        raise ConfigurationError(
            f"ENCRYPTION_KEYS: stored tokens need the key {', '.join(missing)}; put it back, behind the writing key"
        )


def _renew(runtime: Context, rows: list[Ciphertexts], kinds: tuple[str, str]) -> tuple[list[Ciphertexts], list[UUID]]:
    renewed, unreadable = [], []
    for row in rows:
        try:
            renewed.append(
                Ciphertexts(
                    id=row.id,
                    provider_id=row.provider_id,
                    generation=row.generation,
                    key_id=row.key_id,
                    access_token=_again(runtime, row, kinds[0], row.access_token),
                    refresh_token=row.refresh_token and _again(runtime, row, kinds[1], row.refresh_token),
                )
            )
        except EncryptionError as error:
            log.error("token_unreadable", provider_id=str(row.provider_id), key_id=row.key_id, error=str(error))
            unreadable.append(row.provider_id)
    return renewed, unreadable


def _again(runtime: Context, row: Ciphertexts, kind: str, ciphertext: str) -> str:
    encryption, id_, generation = runtime.encryption, row.provider_id, row.generation
    value = encryption.unseal(ciphertext, provider_id=id_, kind=kind, generation=generation, key_id=row.key_id)
    return encryption.seal(value, provider_id=id_, kind=kind, generation=generation)
