"""Setup tokens that are claimed once, for an access URL that is the whole credential, and integrations with them.

A setup token is the base64 of an address of the server. A POST there uses it up, and the answer is an address with a
user name and a password, which open the server for good. Whoever gives us a token could name any address in it. So all
calls go to the configured server, and a token or an access URL that names another one is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from worker.errors import BadEntry, BadPayload, OutcomeUnknown, RateLimited, ReauthRequired
from worker.integrations.kit.base import Caller, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api, Endpoint, read_retry_after
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import SETUP_TOKEN, LinkKind
from worker.integrations.kit.oauth2 import checked_token
from worker.integrations.kit.settings import IntegrationSettings, in_words

_LONGEST = 4096
_MAYBE_USED = "it is not known whether the setup token was used up: make a new one, and disable this one there"
_USED = (
    "the setup token is unknown, has expired or was used before. Make a new one; if you did not use this one yourself,"
    " somebody else may have it, so disable it there"
)
_UNREADABLE = "this is no setup token: copy all of it; nothing was sent"
_OTHER = (
    "the setup token is cut off, or of another server than this installation uses: copy all of it; nothing was sent"
)
_NO_ACCESS = "the setup token was used up, and the answer is no access URL of this server: make a new setup token"


class Server:
    """The server that is asked, and the addresses under which tokens may name it.

    Args:
        api: the client, whose base URL is the server's.
        base_url: its base URL.
        known_as: other addresses that stand for it.
    """

    def __init__(self, api: Api, base_url: str, known_as: Sequence[str] = ()) -> None:
        self._api = api
        self._names = [_name(urlsplit(name)) for name in (base_url, *known_as)]

    def path(self, url: str) -> str | None:
        """The path below the base URL to which an address leads; None if it is no address of this server."""
        try:
            parts = urlsplit(url)
            named = _name(parts)
        except ValueError:
            return None
        if parts.query or parts.fragment or not url.isascii() or "/../" in f"{unquote(parts.path)}/":
            return None
        return next((named[len(name) :] for name in self._names if f"{named}/".startswith(f"{name}/")), None)

    def authorization(self, access_url: str) -> dict[str, str]:
        """The header that opens the server.

        Raises:
            ReauthRequired: the stored credential is no access URL of this server.
        """
        parts = urlsplit(access_url)
        if self.path(access_url) is None or parts.username is None or parts.password is None:
            raise ReauthRequired("access_url_of_another_server")
        pair = f"{unquote(parts.username)}:{unquote(parts.password)}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    async def claim(self, caller: Caller, setup_token: str) -> TokenAnswer:
        """Claims a setup token, once. The access URL does not expire.

        Raises:
            BadEntry: it is no setup token, or one of another server; nothing was sent.
            ReauthRequired: the server does not accept it (any more).
            OutcomeUnknown: no readable answer came; the token may have been used up.
            ProviderError: see `Api.send`; the token was not used.
        """
        endpoint = self._api.endpoint("claim", "POST", self._claim_path(setup_token))
        try:
            answer = await self._api.send(endpoint, caller, headers={"accept": "text/plain"}, content=b"")
        except OutcomeUnknown:
            raise OutcomeUnknown("claim_unanswered", says=_MAYBE_USED) from None
        except BadPayload as error:
            if error.reason == "redirect_refused":
                raise
            raise OutcomeUnknown("claim_unanswered", says=_MAYBE_USED) from None
        if answer.status == 429:
            raise RateLimited("http_429", retry_after=read_retry_after(answer.headers))
        if answer.status >= 500:
            raise OutcomeUnknown("claim_unanswered", says=_MAYBE_USED)
        if answer.status != 200:
            raise ReauthRequired("setup_token_refused", says=_USED)
        try:
            given = checked_token(answer.body.decode().strip(), "access_url")
            self.authorization(given)
        except (UnicodeDecodeError, ValueError, BadPayload, ReauthRequired):
            raise OutcomeUnknown("no_access_url", says=_NO_ACCESS) from None
        return TokenAnswer(given)

    def _claim_path(self, setup_token: str) -> str:
        text = "".join(setup_token.split())
        try:
            padded = text.rstrip("=").replace("-", "+").replace("_", "/")
            url = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            raise BadEntry("setup_token_unreadable", says=_UNREADABLE) from None
        if len(text) > _LONGEST or not url.isprintable() or "://" not in url:
            raise BadEntry("setup_token_unreadable", says=_UNREADABLE)
        path = self.path(url)
        if not path:
            raise BadEntry("setup_token_of_another_server", says=_OTHER)
        return path


def _name(parts: SplitResult) -> str:
    """Scheme, host, port and path of an address, in one spelling and without user name. May raise ValueError."""
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}"


class AccessUrlSettings(IntegrationSettings):
    """The server of this installation."""

    known_as: str = ""
    """Other addresses of the server that setup tokens and access URLs name, separated by commas."""


class AccessUrlIntegration(Integration):
    """One provider API whose logins are linked with setup tokens. Subclasses add `pages`."""

    link_kind: ClassVar[LinkKind] = SETUP_TOKEN

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._server = Server(api, settings.base_url, in_words(settings.known_as))

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Claims the setup token, which works once."""
        return await self._server.claim(caller, form["setup_token"])

    def credentials(self, access_token: str) -> dict[str, str]:
        """Name and password of the access URL."""
        return self._server.authorization(access_token)

    def endpoint_of(self, request: SyncRequest, name: str, path: str) -> Endpoint:
        """The endpoint with this name, for reading a path below the login's access URL."""
        return self.api.endpoint(name, "GET", f"{self._server.path(request.access_token)}{path}")
