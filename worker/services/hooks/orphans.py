"""Logins of which hooks arrive although we have none of them: the provider may go on charging for them."""

from __future__ import annotations

from worker.services.context import Context
from worker.services.findings import Finding

_LISTED = 5


async def finding(runtime: Context, _: object) -> Finding:
    """Lists such logins, the newest first."""
    from worker.crud import hooks  # its tables are slow to import, and `dashtam status` does not ask for this

    found = await runtime.db(hooks.orphans, limit=_LISTED + 1)
    if not found:
        return Finding("hooks", True, "every login that sends hooks is one of ours")
    listed = ", ".join(f"{one.provider_key} {one.external_id}" for one in found[:_LISTED])
    more = " and more" if len(found) > _LISTED else ""
    what = f"hooks arrive of logins that are not here, and the provider may charge for them: {listed}{more}"
    mend = "end these logins at the provider, in its own pages; they are listed for RETAIN_HOOKS_DAYS after a hook"
    return Finding("hooks", True, what, mend)
