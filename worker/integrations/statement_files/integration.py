"""Files that a bank hands out, as a provider: no token, no call, no schedule. See docs/providers/statement_files.md."""

from __future__ import annotations

import copy
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from pydantic_settings import SettingsConfigDict

from worker.errors import BadRequest, Refused
from worker.integrations.kit.base import Caller, FileReading, Page, SyncRequest, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import FILE
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.statement_files import camt, ofx
from worker.integrations.statement_files.statements import Statement, pages
from worker.settings import EnvironmentSettings

FORMATS = (ofx, camt)
MOST_BYTES = 20 << 20
_ZIPPED = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"Rar!", b"7z\xbc\xaf")


class StatementFilesSettings(EnvironmentSettings):
    """There is nothing to set."""

    model_config = SettingsConfigDict(env_prefix="STATEMENT_FILES_")


class StatementFiles(Integration):
    """See `worker.integrations.kit.integration.Integration`. Its token is a secret of the login, made here."""

    key = "statement_files"
    name = "Statement files"
    provider_type = "files"
    description = "Files that a bank hands out: OFX, QFX and CAMT."
    nouns = (*Integration.nouns, "holdings")
    link_kind = FILE
    settings_class = StatementFilesSettings  # type: ignore[assignment]
    error_rules = (Rule(BadRequest),)
    secret_shapes = (r"\bstatement-files-[\w-]{16,}",)
    reads_files = True
    statements: Sequence[Statement] = ()

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
        if len(content) > MOST_BYTES:
            raise Refused(f"the file has more than {MOST_BYTES >> 20} MiB; nothing was stored")
        if not content.strip():
            raise Refused("the file is empty; nothing was stored")
        if content.startswith(_ZIPPED):
            raise Refused("the file is packed: unpack it and import what is in it; nothing was stored")
        found = next((form for form in FORMATS if form.is_one(content)), None)
        if found is None:
            names = ", ".join(form.NAME for form in FORMATS)
            raise Refused(f"the file has none of the formats that can be read ({names}); nothing was stored")
        statements = found.read(content)
        if not statements:
            raise Refused("the file has no statement of an account; nothing was stored")
        bound = copy.copy(self)
        bound.statements = statements
        return FileReading(found.NAME, tuple(one.told() for one in statements), bound)

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """What is in the file. Without a file there is nothing to read."""
        for page in pages(self.statements, request) if self.statements else ():
            yield page
