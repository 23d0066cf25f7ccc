"""Sessions of browsers: a person logs in with an API key, and the browser then has a cookie in place of the key.

The cookie's value holds the id of the key, never the key, and is encrypted and signed with `ENCRYPTION_KEYS`. At every
request the key is looked up by its id, so revoking the key also ends its sessions.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from worker.errors import EncryptionError, NotAuthenticated
from worker.models.vocabulary import KeyScope
from worker.services.access import keys
from worker.services.access.keys import Principal
from worker.services.context import Context

_SECRET_BYTES = 24
_LONGEST = 2000


class _Written(msgspec.Struct, tag="session", tag_field="kind"):
    """What the cookie's value holds; `ends_at` is in seconds of Unix time."""

    key_id: UUID
    secret: str
    ends_at: int


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser that is logged in.

    Attributes:
        secret: random, known to this server and the browser's cookie; the tokens of forms are made from it.
    """

    principal: Principal
    secret: str = field(repr=False)


async def begin(runtime: Context, key: str) -> str:
    """Logs a browser in. Returns the value for its cookie.

    Raises:
        NotAuthenticated: the key is not valid.
        NotPermitted: the key may not read.
        Unavailable: Postgres is out of reach.
    """
    principal = await keys.authenticate(runtime, key)
    keys.require(principal, [KeyScope.READ])
    ends_at = int(time.time()) + runtime.settings.web_session_seconds
    written = _Written(principal.key_id, secrets.token_urlsafe(_SECRET_BYTES), ends_at)
    return runtime.encryption.encrypt(msgspec.json.encode(written).decode())


async def read(runtime: Context, value: str | None) -> BrowserSession:
    """The session in a cookie's value.

    Raises:
        NotAuthenticated: there is none, it has ended, it was not made here, or its key is no longer valid.
        Unavailable: Postgres is out of reach.
    """
    written = _read(runtime, value or "")
    principal = None
    if written is not None and written.ends_at > time.time():
        principal = await keys.still_valid(runtime, written.key_id)
    if written is None or principal is None:
        raise NotAuthenticated("this page needs a login with an API key")
    return BrowserSession(principal, written.secret)


def _read(runtime: Context, value: str) -> _Written | None:
    if not 0 < len(value) <= _LONGEST or not value.isascii():
        return None
    try:
        return msgspec.json.decode(runtime.encryption.decrypt(value), type=_Written)
    except (EncryptionError, msgspec.MsgspecError):
        return None
