"""The owner of an API key hands over a file of a bank."""

from __future__ import annotations

from collections.abc import Sequence

from worker.errors import BadArgument, NotPermitted
from worker.services.access.keys import Principal
from worker.services.context import Context
from worker.services.sync import importing
from worker.services.sync.importing import Imported


async def import_file(
    runtime: Context, principal: Principal, content: bytes, *, alias: str, options: Sequence[str], dry_run: bool
) -> Imported:
    """Stores what is in a file, or only looks at it.

    Args:
        runtime: the process's context.
        principal: whose key it is; the accounts will be that user's.
        content: the whole file.
        alias: the user's name for the login that has the accounts of files.
        options: what the user says about the file, each as NAME=VALUE.
        dry_run: only look at the file.

    Raises:
        NotPermitted: the key is an operator's.
        BadArgument: an option is not NAME=VALUE.
        Refused, Unavailable: see `importing.import_file`.
    """
    if principal.user_id is None:
        raise NotPermitted("a file belongs to a user: use a key of that user; nothing was stored")
    pairs = [option.partition("=") for option in options]
    if not all(sign for _, sign, _ in pairs):
        raise BadArgument("each `set` must be NAME=VALUE; nothing was stored")
    given = {name.strip(): value.strip() for name, _, value in pairs}
    if dry_run:
        return await importing.look_at(runtime, content, options=given)
    return await importing.import_file(runtime, content, user_id=principal.user_id, alias=alias, options=given)
