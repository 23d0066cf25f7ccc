"""The base class of integrations whose calls are signed with this application's own key (RS256)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from worker.integrations.kit.application_keys import SHAPES, ApplicationKey
from worker.integrations.kit.http import Api
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.settings import IntegrationSettings


class SignedSettings(IntegrationSettings):
    """This application's registration at a provider that knows it by its key."""

    application_id: str
    private_key: SecretStr
    """The RSA key of the application, in PEM format."""
    redirect_uri: str
    """The registered address to which the provider sends the user back."""


class SignedIntegration(Integration):
    """One provider API that is called with JWTs of the application, which are the same for all logins.

    Attributes:
        issuer, audience: the claims `iss` and `aud` of the JWTs.
    """

    secret_shapes: ClassVar[tuple[str, ...]] = SHAPES
    issuer: ClassVar[str]
    audience: ClassVar[str]

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._key = ApplicationKey(
            settings.private_key.get_secret_value(),
            variable=f"{settings.model_config['env_prefix']}PRIVATE_KEY",
            key_id=settings.application_id,
            issuer=self.issuer,
            audience=self.audience,
        )

    @property
    def redirect_uri(self) -> str:
        """The registered address to which the provider sends the user back."""
        return str(self.settings.redirect_uri)

    def credentials(self, access_token: str = "") -> dict[str, str]:
        """The header that shows which application calls. Of which login a call is, its path or its body says."""
        return self._key.bearer()
