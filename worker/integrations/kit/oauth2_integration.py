"""The base class of integrations with OAuth 2: consent, exchange and refresh. Subclasses add `pages`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import SecretStr

from worker.integrations.kit.base import Caller, RefreshPolicy, TokenAnswer
from worker.integrations.kit.http import Api
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import CODE, CODE_VERIFIER, OAUTH, LinkKind
from worker.integrations.kit.oauth2 import ask_token
from worker.integrations.kit.settings import IntegrationSettings
from worker.integrations.kit.taxonomy import Rule


class OAuth2Settings(IntegrationSettings):
    """This application's registration at a provider with OAuth 2."""

    client_id: SecretStr
    client_secret: SecretStr
    redirect_uri: str
    """The registered address to which the provider sends the user back."""

    @property
    def client(self) -> tuple[str, str]:
        """This application's client id and client secret."""
        return self.client_id.get_secret_value(), self.client_secret.get_secret_value()


class OAuth2Integration(Integration):
    """One provider API with OAuth 2; the token endpoint takes the application's credential as `Authorization: Basic`.

    Attributes:
        authorize_path: of the address at which users consent; below the base URL, or the whole address.
        token_path: below the base URL.
        token_rules: what errors of the token endpoint mean; they come before the rules of the OAuth 2 standard.
        revoke_path: path of the revocation endpoint (RFC 7009); "" if there is none, and then only users end grants.
        grant_lifetime: how long a consent lasts; refreshes do not extend it. None where it is unknown.
        login_id: the members of a token answer that lead to the provider's own id of the login; empty if it names none.
        scope: the OAuth 2 scope that is asked for; "" sends none, and the provider decides.
    """

    link_kind: ClassVar[LinkKind] = OAUTH
    refresh_policy: ClassVar[RefreshPolicy | None] = RefreshPolicy(default_lifetime=timedelta(minutes=30))
    token_path: ClassVar[str] = "/oauth/token"  # noqa: S105 - a path
    token_rules: ClassVar[tuple[Rule, ...]] = ()
    grant_lifetime: ClassVar[timedelta | None] = None
    revoke_path: ClassVar[str] = ""
    login_id: ClassVar[tuple[str, ...]] = ()
    authorize_path: str = "/oauth/authorize"
    scope: str = ""

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._client_id, secret = settings.client
        self._token = api.endpoint("token", "POST", self.token_path)
        self._token_headers = {
            "authorization": "Basic " + base64.b64encode(f"{self._client_id}:{secret}".encode()).decode(),
            "content-type": "application/x-www-form-urlencoded",
        }

    @property
    def redirect_uri(self) -> str:
        """The registered address to which the provider sends the user back."""
        return str(self.settings.redirect_uri)

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        """The address at which the user consents."""
        query = {
            "client_id": self._client_id,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "state": state,
        }
        if self.scope:
            query["scope"] = self.scope
        if challenge is not None:
            query |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        path = self.authorize_path
        address = path if "://" in path else f"{self.settings.base_url.rstrip('/')}{path}"
        return f"{address}?{urlencode(query)}"

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Exchanges the code, URL-decoded once, for tokens. `grant_lifetime` is counted from `now`."""
        asked = {"grant_type": "authorization_code", CODE: form[CODE], "redirect_uri": self.redirect_uri}
        if CODE_VERIFIER in form:
            asked[CODE_VERIFIER] = form[CODE_VERIFIER]
        answer = await self._ask_token(caller, asked)
        return answer if self.grant_lifetime is None else replace(answer, grant_expires_at=now + self.grant_lifetime)

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        """Sends the refresh token once. The answer may rotate it; the end of the grant does not change."""
        return await self._ask_token(caller, {"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Ends the grant at the revocation endpoint, if there is one. A token that is unknown there counts as ended."""
        if not self.revoke_path:
            return False
        kind, token = ("refresh_token", refresh_token) if refresh_token else ("access_token", access_token)
        endpoint = self.api.endpoint("revoke", "POST", self.revoke_path)
        form = urlencode({"token": token, "token_type_hint": kind}).encode()
        self.check(await self.api.send(endpoint, caller, headers=self._token_headers, content=form), self.token_rules)
        return True

    async def _ask_token(self, caller: Caller, form: dict[str, str]) -> TokenAnswer:
        policy = self.refresh_policy or RefreshPolicy(default_lifetime=timedelta(days=1))
        return await ask_token(
            self.api,
            self._token,
            caller,
            headers=self._token_headers,
            form=form,
            rules=self.token_rules,
            policy=policy,
            login_id=self.login_id,
        )
