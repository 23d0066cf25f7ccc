"""Addresses to which a browser may be sent after a link. Others are refused: a link session is no open redirect."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, urlencode, urlsplit

from worker.errors import BadArgument
from worker.models.link_session import LinkSessionRow
from worker.models.vocabulary import LinkSessionState
from worker.settings.addresses import origin_of

_LONGEST = 2000
# Browsers read a backslash as a slash, and leave out tabs and line feeds.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
_RESULT = ("link_session", "status", "provider_id")


def checked(url: str, allowed: Collection[str]) -> str:
    """The same address.

    Args:
        url: an absolute address; its query may have parameters, except those of the result.
        allowed: the origins to which the browser may be sent.

    Raises:
        BadArgument: it is none of these origins' addresses, or could be read in two ways.
    """
    if len(url) > _LONGEST or not _CHARACTERS.fullmatch(url):
        raise BadArgument(
            f"return_url must have at most {_LONGEST} characters, only those of an address, and no #; nothing was made"
        )
    try:
        origin = origin_of(url)
    except ValueError as error:
        raise BadArgument(f"return_url {error}; nothing was made") from None
    if origin not in allowed:
        raise BadArgument("return_url is not on the list of addresses to return to; nothing was made. The operator "
                          "can add its origin to LINK_RETURN_ORIGINS")  # fmt: skip
    if used := sorted({name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)} & set(_RESULT)):
        raise BadArgument(f"return_url has {', '.join(used)} in its query, where the result is put; nothing was made")
    return url


def with_result(row: LinkSessionRow) -> str | None:
    """The address to which the browser goes back: the session's id, its state, and the id of a linked login.

    None if the session has no such address.
    """
    if row.return_url is None:
        return None
    state = LinkSessionState.CANCELLED if row.state == LinkSessionState.OPEN else row.state
    result = {"link_session": str(row.id), "status": str(state)}
    if row.linked_id is not None:
        result["provider_id"] = str(row.linked_id)
    joint = "&" if urlsplit(row.return_url).query else "" if row.return_url.endswith("?") else "?"
    return f"{row.return_url}{joint}{urlencode(result)}"
