"""Imports a file that a bank has handed out, as one run of a login whose data comes in files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog

from worker.crud import links
from worker.crud.database import OpenTransaction
from worker.crud.fleet import history, overview
from worker.crud.sync import beginning, cursors
from worker.errors import BadArgument, NotFound, Refused
from worker.integrations.kit.base import LOOK, FileReading, FileStatement
from worker.integrations.kit.integration import Integration
from worker.models.fleet import Run
from worker.models.vocabulary import ProviderStatus, Trigger
from worker.services.context import Context
from worker.services.fleet import lookup
from worker.services.linking.begin import checked
from worker.services.linking.complete import link_with_form
from worker.services.sync.run import RunUnderWay

ALIAS = "Files"
"""The alias of the login that files are imported into, unless another is given."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file.

    Attributes:
        format: the name of its format.
        statements: what is in it.
        run: the run that stored it; None if it was only looked at.
        proposal: what is proposed to be confirmed about the file, by the names of options.
    """

    format: str
    statements: tuple[FileStatement, ...]
    run: Run | None
    proposal: Mapping[str, str] = field(default_factory=dict)


async def import_file(
    runtime: Context,
    content: bytes,
    *,
    user_id: UUID,
    alias: str = ALIAS,
    options: Mapping[str, str] | None = None,
) -> Imported:
    """Takes a file apart, and stores what is in it. The login is made if the user has none with this alias.

    Args:
        runtime: the process's context.
        content: the whole file.
        user_id: the user to whom the accounts belong.
        alias: the user's name for the login that has the accounts of files.
        options: what the user says about the file.

    Raises:
        NotFound: no such user, or no integration that reads files is enabled.
        Refused: the file cannot be read, or the login is not active or is being synced. Nothing was stored.
        Unavailable: Postgres is out of reach; import the file again.
    """
    integration = _reader(runtime)
    provider_id = await _login(runtime, integration, user_id, alias)
    known = {} if provider_id is None else await runtime.db(cursors.read_cursors, provider_id=provider_id)
    saved = {feed: known[feed] for feed in integration.memory_feeds & known.keys()}
    reading = await _read(integration, content, {**saved, **(options or {})})
    if provider_id is None:
        provider_id = await link_with_form(runtime, integration.key, user_id, alias, {})
    begun = await runtime.db(
        beginning.begin_run,
        provider_id=provider_id,
        owner=runtime.owner,
        trigger=Trigger.MANUAL,
        mode="incremental",
        now=await runtime.now(),
        dead_after=timedelta(seconds=runtime.settings.run_dead_seconds),
        min_interval=None,
        memory_feeds={integration.key: integration.memory_feeds},
    )
    with structlog.contextvars.bound_contextvars(provider_id=str(provider_id), run_id=str(begun.key.id)):
        await RunUnderWay(runtime, begun, trigger=Trigger.MANUAL, source=reading.integration).run()
    (run,) = await runtime.db(history.runs_between, first=begun.key.id, last=begun.key.id)
    return Imported(reading.format, reading.statements, run)


async def alias_of(runtime: Context, user_id: UUID, given: str) -> str:
    """The alias of the login of files that the user names by its alias or the beginning of its id.

    Raises:
        BadArgument: ids of several logins begin with this text, or it is a whole id and no such login has it.
    """
    key = _reader(runtime).key

    def find(session: OpenTransaction) -> str:
        first, last = lookup.id_range(given)
        rows = overview.find_providers(session, first=first, last=last, alias=given)
        own = {row.alias for row in rows if (row.user_id, row.provider_key) == (user_id, key)}
        if len(own) > 1 or (not own and first is not None and first == last):
            told = "means more than one login: give more of the id" if own else "is no login of this user's files"
            raise BadArgument(f"{given!r} {told}; nothing was stored. `dashtam providers` lists them")
        return own.pop() if own else given

    return await runtime.db(find)


async def look_at(runtime: Context, content: bytes, *, options: Mapping[str, str] | None = None) -> Imported:
    """Takes a file apart and says what is in it. Nothing is stored. Raises the same errors as `import_file`."""
    reading = await _read(_reader(runtime), content, {**(options or {}), LOOK: "yes"})
    return Imported(reading.format, reading.statements, None, reading.proposal)


async def _read(integration: Integration, content: bytes, options: Mapping[str, str]) -> FileReading:
    return await asyncio.to_thread(integration.of_file, content, options)


def _reader(runtime: Context) -> Integration:
    for integration in runtime.integrations.values():
        if integration.reads_files:
            return integration
    raise NotFound("no integration that reads files is enabled; leave INTEGRATIONS empty, or add it there")


async def _login(runtime: Context, integration: Integration, user_id: UUID, alias: str) -> UUID | None:
    named = checked(user_id, integration.key, alias)
    for status in ProviderStatus:
        found = await runtime.db(links.find_with_token, provider_in=named, status=status)
        if found is None:
            continue
        if status is not ProviderStatus.ACTIVE:
            raise Refused(f"the login {alias} is {status}, so nothing was stored; {status.what_to_do(found)}")
        return found
    return None
