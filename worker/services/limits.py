"""Whether Postgres's own time limits, without which a paused process keeps its locks, reach Postgres."""

from __future__ import annotations

from worker.crud import database
from worker.errors import ConfigurationError
from worker.services.context import Context


async def require_in_effect(runtime: Context) -> None:
    """Checks the limits on a connection of this process.

    Raises:
        ConfigurationError: a pooler drops them; the text says what to do.
        Unavailable: Postgres is out of reach.
    """
    missing = await runtime.db(database.missing_limits)
    if missing:
        raise ConfigurationError(
            f"DATABASE_URL: {', '.join(missing)} of our connections does not reach Postgres, because a pooler drops it;"
            " pending work is kept. Set DATABASE_POOLER=true"
        )
