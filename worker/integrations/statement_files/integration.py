"""Files that a bank hands out, as a provider: no token, no call, no schedule. See docs/providers/statement_files.md."""

from __future__ import annotations

import copy
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType, ModuleType
from typing import Any, Self

import msgspec
from pydantic_settings import SettingsConfigDict

from worker.errors import BadRequest, Refused
from worker.integrations.kit import reading
from worker.integrations.kit.base import LOOK, MOST_FILE_BYTES, Caller, FileReading, Page, SyncRequest, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import FILE
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.statement_files import delimited
from worker.integrations.statement_files.statements import Statement, pages, without_number
from worker.settings import EnvironmentSettings

COLUMNS = "columns"
"""The feed whose cursor keeps what the columns of CSV files mean, by the names of the columns."""
_MOST_TAGS = 1_000_000
"""More tags than 10 MiB of transactions have; without a limit, empty ones take minutes and all memory."""
_ZIPPED = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"Rar!", b"7z\xbc\xaf")

_columns = reading.Reader(dict[str, dict[str, str]])


def _formats() -> tuple[ModuleType, ...]:
    # To import their parsers takes a third of a second, and every worker and nearly every command imports this module.
    from worker.integrations.statement_files import camt, ofx, swift

    return ofx, camt, swift


class StatementFilesSettings(EnvironmentSettings):
    """There is nothing to set."""

    model_config = SettingsConfigDict(env_prefix="STATEMENT_FILES_")


class StatementFiles(Integration):
    """See `worker.integrations.kit.integration.Integration`. Its token is a secret of the login, made here."""

    key = "statement_files"
    name = "Statement files"
    provider_type = "files"
    description = "Files that a bank hands out: OFX, QFX, CAMT, MT940 and CSV."
    nouns = (*Integration.nouns, "holdings")
    link_kind = FILE
    settings_class = StatementFilesSettings  # type: ignore[assignment]
    error_rules = (Rule(BadRequest),)
    secret_shapes = (r"\bstatement-files-[\w-]{16,}",)
    reads_files = True
    memory_feeds = frozenset({COLUMNS})
    statements: Sequence[Statement] = ()
    columns: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    names_account = False

    @classmethod
    def build(cls, **_: Any) -> Self:
        """It makes no calls, so it needs neither an address nor a client."""
        return cls(StatementFilesSettings(), None)  # type: ignore[arg-type]

    async def aclose(self) -> None:
        """There are no connections."""

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """The secret with which keys of accounts and rows are made (`statements`)."""
        return TokenAnswer(f"statement-files-{secrets.token_urlsafe(32)}")

    def of_file(self, content: bytes, options: Mapping[str, str]) -> FileReading:
        """Takes a file apart."""
        if len(content) > MOST_FILE_BYTES:
            raise Refused(f"the file has more than {MOST_FILE_BYTES >> 20} MiB; nothing was stored")
        if content.count(b"<") > _MOST_TAGS:
            raise Refused(f"the file has more than {_MOST_TAGS} tags: get it in parts; nothing was stored")
        if not content.strip():
            raise Refused("the file is empty; nothing was stored")
        if content.startswith(_ZIPPED):
            raise Refused("the file is packed: unpack it and import what is in it; nothing was stored")
        formats = _formats()
        found = next((form for form in formats if form.is_one(content)), None)
        bound = copy.copy(self)
        proposal: dict[str, str] = {}
        if found is not None:
            bound.statements, name = found.read(content), found.NAME
        elif delimited.is_one(content):
            name, proposal = delimited.NAME, bound.read_delimited(content, options)
        else:
            names = ", ".join((*(form.NAME for form in formats), delimited.NAME))
            raise Refused(f"the file has none of the formats that can be read ({names}); nothing was stored")
        if not bound.statements and not proposal:
            raise Refused("the file has no statement of an account; nothing was stored")
        return FileReading(name, tuple(one.told() for one in bound.statements), bound, proposal)

    def read_delimited(self, content: bytes, options: Mapping[str, str]) -> dict[str, str]:
        """Reads a CSV file with the given meaning of its columns, or else the saved one. Returns what was proposed."""
        table = delimited.Table(content)
        given = {name: value for name, value in options.items() if name not in (LOOK, COLUMNS)}
        saved = _columns.page((options.get(COLUMNS) or "{}").encode()).get(table.digest)
        proposal = {} if saved else table.proposal() | given
        if not given and saved is None and LOOK not in options:
            told = " ".join(f"--set '{name}={value}'" for name, value in proposal.items())
            raise Refused(
                "what the columns of this file mean must be confirmed once; nothing was stored",
                for_operators=f"this is proposed, fill in what is empty: {told}",
                for_clients="send the file with dry_run=true, and confirm what the answer proposes with set=NAME=VALUE",
            )
        chosen = {**(saved or {}), **(proposal if LOOK in options else given)}
        try:
            self.statements = delimited.read(table, chosen)
        except Refused:
            if LOOK not in options:
                raise
        self.columns, self.names_account = {table.digest: chosen}, chosen.get("account") not in table.names
        return proposal

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """What is in the file. Without a file there is nothing to read."""
        if self.columns:
            known = _columns.page(request.cursors.get(COLUMNS, "{}").encode())
            for digest, chosen in self.columns.items():
                known[digest] = dict(chosen)
                if self.names_account:  # no number may be stored
                    account = "".join(chosen["account"].split())
                    known[digest]["account"] = without_number(request.access_token, account)
            yield Page(feed=COLUMNS, cursor=msgspec.json.encode(known, order="sorted").decode())
        for page in pages(self.statements, request) if self.statements else ():
            yield page
