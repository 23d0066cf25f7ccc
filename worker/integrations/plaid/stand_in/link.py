"""Link in a page: the script that an application loads, and what the script asks for.

Plaid's script shows a frame of Plaid's. This one adds a small form to the page, so that a person or a test can choose a
login, consent or cancel.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from worker.integrations.plaid.stand_in.arguments import text_of
from worker.integrations.plaid.stand_in.errors import PlaidError
from worker.integrations.plaid.stand_in.items import Item, Items
from worker.sandbox.core import Login, Profile
from worker.sandbox.wire import Answer, Request, json_answer

SCRIPT_PATH = "/link/v2/stable/link-initialize.js"
_LOGINS_PATH = "/link/sandbox/logins"
_CONSENT_PATH = "/link/sandbox/consent"
_FOR_EVERY_ORIGIN = [(b"access-control-allow-origin", b"*")]


class LinkPage:
    """Link's part of the stand-in.

    Args:
        profile: The stand-in.
        items: Its Items.
    """

    def __init__(self, profile: Profile, items: Items) -> None:
        self._profile = profile
        self._items = items
        self._opened: dict[str, str | None] = {}

    def opened(self, link_token: str, item: Item | None) -> None:
        """Records a link token. With an Item, it is for update mode: its login alone can be chosen."""
        self._opened[link_token] = None if item is None else item.login.name

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request of the script or for it; None for every other request."""
        if (request.method, request.path) == ("GET", SCRIPT_PATH):
            script = files(__package__).joinpath("link.js").read_bytes()
            return Answer(200, script, [(b"content-type", b"text/javascript; charset=utf-8")])
        if (request.method, request.path) == ("POST", _LOGINS_PATH):
            return json_answer(200, {"logins": self._logins(request.json())}, _FOR_EVERY_ORIGIN)
        if (request.method, request.path) == ("POST", _CONSENT_PATH):
            return json_answer(200, self._consent(request.json()), _FOR_EVERY_ORIGIN)
        return None

    def _logins(self, body: dict[str, Any]) -> list[str]:
        """The logins that can be chosen; those without an Item come first."""
        token = text_of(body, "link_token")
        if token not in self._opened:
            raise PlaidError("INVALID_LINK_TOKEN")
        only = self._opened[token]
        if only is not None:
            return [only]
        mine = [name for name, login in self._profile.sandbox.logins.items() if login.profile is self._profile]
        return sorted(mine, key=self._items.is_linked)

    def _consent(self, body: dict[str, Any]) -> dict[str, Any]:
        chosen = text_of(body, "login")
        if chosen not in self._logins(body):
            raise PlaidError("INVALID_INSTITUTION")
        login = self._profile.sandbox.logins[chosen]
        return {**self._profile.consent(login, {}), "metadata": metadata(login)}


def metadata(login: Login) -> dict[str, Any]:
    """What Link tells the application of a login, beside the public token."""
    accounts = [
        {"id": one.id, "name": one.name, "mask": one.mask, "type": one.provider_type, "subtype": one.provider_subtype}
        for one in login.ledger.open_accounts()
    ]
    institution = {"institution_id": f"ins_{login.ordinal}", "name": f"Sandbox Bank {login.ordinal}"}
    return {"institution": institution, "accounts": accounts, "link_session_id": "sandbox"}
