"""Transactions of a page: which are new or changed, which replace others, and which are withdrawn.

A posted transaction takes over the row of the pending one that it replaces, so there is one row and its id stays the
same. What the provider withdraws stays as a tombstone, and becomes live again if it is listed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import NamedTuple, cast
from uuid import UUID

import msgspec

from worker.crud.sync import nouns
from worker.crud.sync.accounts import store_securities
from worker.crud.sync.apply import Differing, Entries, are_safe_keys, diff, is_safe_key, new_ids, texts, uuids, write
from worker.crud.sync.meeting import Meeting, own_key, without_shared
from worker.crud.sync.noun import Row
from worker.crud.sync.pending import ReadAnew, StoredRow, as_stored, stored_rows, take_over, without_superseded
from worker.crud.sync.work import Prepared, Work, read
from worker.errors import BadRecord
from worker.models.pages import Page, RawRecord, Removal, Window
from worker.models.records import TransactionRecord
from worker.models.vocabulary import TransactionStatus

_NOUN = nouns.TRANSACTIONS
_READ = frozenset({TransactionRecord})


def apply_transactions(work: Work, page: Page, prepared: Prepared) -> None:
    """Stores the page's transactions, and withdraws what its removals and windows say."""
    listing = _placed(work, prepared)
    meeting = Meeting(work) if work.accounts.sources else None
    if meeting is not None:
        listing = _of_rows(meeting, listing)
    if work.holds_nothing:
        differing: list[Differing] = list(zip(range(len(listing.rows)), repeat(None)))
    else:
        differing = diff(work.connection, _NOUN, listing.entries)
    work.tally.add(_NOUN.name, unchanged=len(listing.rows) - len(differing))
    if work.rules.open_quarantine:
        unlike = {listing.entries.keys[index] for index, _ in differing}
        work.stored_keys += [key for key in listing.entries.keys if key not in unlike]
    found = _read(work, page, listing, differing)
    withdrawn = _unlisted_pendings(work, page, listing)
    found, superseded = without_superseded(work, found)
    if meeting is not None:
        found, met = meeting.meet(found)
        withdrawn = [row for row in withdrawn if row.id not in met]
    taken, replaced = take_over(work, found, superseded, withdrawn)
    gone = [row.id for row in (*withdrawn, *replaced) if row.id not in taken]
    remember(work, [*(one.stored_id for one in found if one.stored_id is not None), *gone])
    _write(work, found, taken)
    _withdraw(work, gone)
    if meeting is not None:
        meeting.end()
    _remove(work, page.removals, meeting)
    if work.run.reading_id is not None:
        _note_seen(work, listing.entries)


class _Listing(NamedTuple):
    """The records whose account is stored and whose key can be stored."""

    rows: Sequence[RawRecord]
    entries: Entries
    conflicting: frozenset[tuple[str, str]]
    records: Sequence[TransactionRecord | BadRecord] | None


def _placed(work: Work, prepared: Prepared) -> _Listing:
    """Leaves out records of unknown accounts, and records whose key cannot be stored."""
    accounts = work.accounts
    if not are_safe_keys(prepared.keys) or not accounts.keys() >= set(prepared.account_keys):
        rows = [raw for raw in prepared.rows if _is_placed(work, raw)]
        hashes = {(raw.account_key, raw.key): hash_ for raw, hash_ in zip(prepared.rows, prepared.hashes, strict=True)}
        prepared = prepared._replace(
            rows=rows,
            account_keys=[raw.account_key for raw in rows],
            keys=[raw.key for raw in rows],
            hashes=[hashes[raw.account_key, raw.key] for raw in rows],
            records=None,
        )
    scopes = [accounts[key] for key in prepared.account_keys]
    entries = Entries(scopes, prepared.keys, prepared.hashes)
    return _Listing(prepared.rows, entries, prepared.conflicting, prepared.records)


def _of_rows(meeting: Meeting, listing: _Listing) -> _Listing:
    """The listing with the keys under which its rows are stored, where other logins list them, too."""
    left, entries = meeting.place(listing.rows, listing.entries)
    records = None if listing.records is None else [listing.records[index] for index in left]
    return listing._replace(rows=[listing.rows[index] for index in left], entries=entries, records=records)


def _is_placed(work: Work, raw: RawRecord) -> bool:
    """Whether the record's account is known and its key can be stored; if not, it goes to quarantine."""
    if not is_safe_key(raw.key):
        work.reject("transaction", "bad_key", account_key=raw.account_key, payload=work.rules.mask(raw.raw))
    elif raw.account_key not in work.accounts:
        _reject(work, raw, "unknown_account")
    else:
        return True
    return False


def _reject(work: Work, raw: RawRecord, reason: str, detail: str | None = None) -> None:
    record_key = raw.key if is_safe_key(raw.key) else None
    work.reject(
        "transaction",
        reason,
        account_key=raw.account_key,
        record_key=record_key,
        detail=detail,
        payload=work.rules.mask(raw.raw),
    )


def _read(work: Work, page: Page, listing: _Listing, differing: Sequence[Differing]) -> list[ReadAnew]:
    rows, (scopes, keys, hashes) = listing.rows, listing.entries
    records = listing.records
    if work.holds_nothing and not listing.conflicting and records and _READ.issuperset(map(type, records)):
        # The same as below without Python code for each row, because Postgres has nothing to do until this is done.
        readable = cast("Sequence[TransactionRecord]", records)
        return list(map(ReadAnew, readable, scopes, keys, hashes, repeat(None)))
    found = []
    for index, stored_id in differing:
        raw = rows[index]
        record = read(page, raw) if records is None else records[index]
        if isinstance(record, BadRecord):
            _reject(work, raw, record.reason, str(record))
            continue
        if listing.conflicting and (raw.account_key, raw.key) in listing.conflicting:
            record = _flagged(record)
        found.append(ReadAnew(record, scopes[index], keys[index], hashes[index], stored_id))
    return found


def _flagged(record: TransactionRecord) -> TransactionRecord:
    flags = tuple(dict.fromkeys((*record.flags, "duplicate_conflict")))
    return msgspec.structs.replace(record, flags=flags)


def _unlisted_pendings(work: Work, page: Page, listing: _Listing) -> list[StoredRow]:
    """Stored pending rows in the page's windows that the page does not list; posted ones where the window says so."""
    if not page.windows or work.holds_nothing:
        return []
    rejects = [*page.rejects, *work.rejects]
    keys = set(zip(listing.entries.scopes, listing.entries.keys, strict=True))
    keys |= {(work.accounts.get(r.account_key or ""), r.record_key) for r in rejects}  # type: ignore[misc]
    vague = {r.account_key for r in rejects if r.kind == "transaction" and r.record_key is None}
    unlisted: list[StoredRow] = []
    for window in page.windows:
        account_id = work.accounts.get(window.account_key)
        # A record without a readable id may be any of the missing ones, so nothing of its account is withdrawn.
        if account_id is None or window.account_key in vague or None in vague:
            continue
        unlisted += _unlisted_in(work, window, account_id, keys)
    return unlisted


def _unlisted_in(work: Work, window: Window, account_id: bytes, keys: set[tuple[bytes, str]]) -> list[StoredRow]:
    days = (UUID(bytes=account_id), window.first, window.last)
    rows = work.connection.execute(
        "SELECT id, account_id, provider_transaction_id, status, amount, description FROM transactions"
        " WHERE account_id = %s AND posted_date BETWEEN %s AND %s AND status = ANY(%s) ORDER BY id",
        (*days, [TransactionStatus.PENDING, TransactionStatus.POSTED][: 1 + window.posted]),
    )
    unlisted = [row for row in map(as_stored, rows) if (row.account_id, row.key) not in keys]
    if work.accounts.is_further(window.account_key):
        prefix = own_key(work.accounts.sources[window.account_key], "")
        unlisted = [row for row in unlisted if row.key.startswith(prefix)]
    if not unlisted:
        return []
    (live,) = work.connection.execute(
        "SELECT count(*) FROM transactions"
        " WHERE account_id = %s AND status <> 'removed' AND posted_date BETWEEN %s AND %s",
        days,
    ).fetchone() or (0,)
    return unlisted if work.believes(len(unlisted), live, account_key=window.account_key) else []


def _write(work: Work, read: Sequence[ReadAnew], taken: dict[bytes, bool]) -> None:
    named = [one.record.security for one in read if one.record.security is not None]
    securities = store_securities(work, named, describe=False)
    stored = [one for one in read if _has_security(work, one, securities)] if named else read
    fresh = [one for one in stored if one.stored_id is None]
    altered = [(one, one.stored_id) for one in stored if one.stored_id is not None]
    ids = new_ids(len(fresh))

    def row(one: ReadAnew, row_id: bytes) -> Row:
        return nouns.transaction(
            one.record,
            row_id=row_id,
            account_id=one.scope,
            key=one.key,
            security_id=None if one.record.security is None else securities[one.record.security.key],
            content_hash=one.hash,
            loop_id=work.loop_id,
            run_id=work.run_id,
        )

    changed = [row(one, id_) for one, id_ in altered]
    # Made one by one while they are sent: so Postgres stores the first ones while the others are being made.
    new = map(row, fresh, ids)
    refused = write(work.connection, _NOUN, new=new if fresh else (), changed=changed, careful=work.careful)
    lost = {refusal.row[0] for refusal in refused}
    kept = [id_ for _, id_ in altered if id_ not in lost]
    added = len(fresh) - (len(lost) - (len(changed) - len(kept)))
    revived = sum(not taken.get(id_, True) for id_ in kept)
    work.tally.add(_NOUN.name, added=added + revived, changed=len(kept) - revived)
    work.reject_refused("transaction", _NOUN, refused)
    if work.rules.open_quarantine:
        work.stored_keys += [one.key for one, id_ in (*zip(fresh, ids, strict=True), *altered) if id_ not in lost]


def _has_security(work: Work, one: ReadAnew, securities: Mapping[str, bytes]) -> bool:
    """Whether the record's security is stored, if it names one; if it is not, the record goes to quarantine."""
    if one.record.security is None or one.record.security.key in securities:
        return True
    work.reject("transaction", "bad_security", account_key=one.record.account_key, record_key=one.key)
    return False


def _remove(work: Work, removals: Sequence[Removal], meeting: Meeting | None) -> None:
    """Withdraws what the provider has removed. The removal of an unknown row has no effect."""
    known = [removal for removal in removals if is_safe_key(removal.key)]
    if not known:
        return
    if work.rules.open_quarantine:
        work.removed_keys += [removal.key for removal in known]
    stated = work.accounts.main
    row_keys = [
        (account_id, removal.key)
        for removal in known
        for account_id in ([stated.get(removal.account_key)] if removal.account_key else stated.values())
        if account_id is not None
    ]
    ids = [row.id for row in stored_rows(work, row_keys) if row.status != TransactionStatus.REMOVED]
    if meeting is not None:
        ids += meeting.removed_rows(known)
    remember(work, ids)
    _withdraw(work, ids)


def _withdraw(work: Work, ids: Sequence[bytes]) -> None:
    ids = without_shared(work, ids)
    if not ids:
        return
    withdrawn = work.connection.execute(
        "UPDATE transactions SET status = 'removed', content_hash = ''::bytea, run_id = %s"
        " WHERE id = ANY(%s) AND status <> 'removed'",
        (work.run.id, uuids(ids)),
    )
    work.tally.add(_NOUN.name, removed=withdrawn.rowcount)


def remember(work: Work, ids: Sequence[bytes]) -> None:
    """Stores rows as they were before the open loop first changed them. Rows that it inserted itself are left out."""
    if work.loop_id is None or not ids:
        return
    loop_id = UUID(bytes=work.loop_id)
    work.connection.execute(
        "INSERT INTO sync_undo (provider_id, loop_id, transaction_id, before)"
        " SELECT %s, %s, t.id, to_jsonb(t) FROM transactions t WHERE t.id = ANY(%s) AND t.loop_id IS DISTINCT FROM %s"
        " ON CONFLICT DO NOTHING",
        (work.run.provider_id, loop_id, uuids(ids), loop_id),
    )


def _note_seen(work: Work, entries: Entries) -> None:
    if entries.keys:
        work.connection.execute(
            "INSERT INTO sync_seen (provider_id, generation, loop_id, transaction_id) SELECT %s, %s, %s::uuid, t.id"
            " FROM unnest(%s, %s) AS k(account_id, key)"
            " JOIN transactions t ON t.account_id = k.account_id AND t.provider_transaction_id = k.key",
            (
                work.run.provider_id,
                work.run.reading_id,
                UUID(bytes=work.loop_id) if work.loop_id else None,
                uuids(entries.scopes),
                texts(entries.keys),
            ),
        )
