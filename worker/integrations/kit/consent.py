"""How a user consents: at an address of the provider, or in the provider's own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from worker.errors import BadPayload, Unsupported
from worker.integrations.kit.base import Caller, FormToken
from worker.integrations.kit.link_kinds import Choice, FrontEnd
from worker.models.records import AccountRecord


class Consent:
    """The part of an integration that leads a user to consent. An integration overrides what its link kind needs."""

    settings: Any

    @property
    def redirect_uri(self) -> str:
        """The registered address to which the provider sends the user back (`link_kind.redirects`)."""
        raise Unsupported("consent_by_link")

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        """The address at which the user consents, if it needs no call (`link_kind.redirects`).

        Args:
            state: the provider sends it back together with the user.
            challenge: S256 of the code verifier; needed if `link_kind.pkce` is set.

        Raises:
            Unsupported: users of this integration do not consent at an address.
        """
        raise Unsupported("consent_by_link")

    async def begin_consent(
        self, caller: Caller, form: Mapping[str, str], *, state: str, challenge: str | None, now: datetime
    ) -> str:
        """The address at which the user consents. By default `authorize_url`; overridden if the provider makes it.

        Args:
            caller: a person who waits for the answer.
            form: the values of `link_kind.asks` by name.
            state: see `authorize_url`.
            challenge: see `authorize_url`.
            now: the present time by the database's clock.

        Raises:
            Refused: the form has a value that cannot be used.
            ProviderError: the provider made no address.
        """
        return self.authorize_url(state, challenge)

    def consent_address(self, url: str) -> str:
        """An address that the provider has made, if a user may be sent there: https, or below our base URL.

        Raises:
            BadPayload: it is another one.
        """
        if not url.startswith(("https://", str(self.settings.base_url))):
            raise BadPayload("consent_address")
        return url

    async def choices(self, caller: Caller, field: str) -> Sequence[Choice]:
        """The values that a field of `link_kind.asks` may have (`FormField.chosen`). Raises `ProviderError`."""
        raise Unsupported("choices")

    @property
    def front_end(self) -> FrontEnd | None:
        """The provider's own form, if users consent in one; it fills in the fields of `link_kind`."""
        return None

    async def open_front_end(self, caller: Caller, *, user_id: UUID) -> FormToken:
        """What opens the provider's own form for a new consent (`front_end`). May raise `ProviderError`."""
        raise Unsupported("front_end")

    def accounts_told(self, form: Mapping[str, str]) -> Sequence[AccountRecord]:
        """The accounts behind what the provider's own form handed over, as far as it says (`link_kind.told`).

        They come from a browser, so they serve only to refuse a second link before anything is exchanged. What they do
        not say, such as the currency, has its default.
        """
        return ()
