"""The base class of stand-ins with OAuth 2 and rotating tokens: RFC 6749, with PKCE of RFC 7636.

A stand-in derives from `OAuthProfile` and adds the requests that need an access token (`data`). Where its provider
differs from the standard, it overrides a method.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from worker.sandbox import consent_page
from worker.sandbox.core import Caller, Login, Profile, Sandbox
from worker.sandbox.grants import DeadGrantError, Grants, TokenPair, token_digest
from worker.sandbox.one_time import OneTimeTokens
from worker.sandbox.wire import Answer, RefusedError, Request, basic_credentials, json_answer


class OAuthProfile(Profile):
    """Consent, codes, grants and bearer tokens.

    Attributes:
        client: The application's id and secret.
        redirect_uri: The application's registered redirect URI.
        authorize_path, token_path: The path where the user consents, and that of the token endpoint.
        scope: The scope of every token.
        access_format, refresh_format: The format of tokens, with `{}` for the random part.
    """

    client: ClassVar[tuple[str, str]]
    redirect_uri: ClassVar[str] = "https://127.0.0.1"
    authorize_path: ClassVar[str] = "/oauth/authorize"
    token_path: ClassVar[str] = "/oauth/token"  # noqa: S105 - a path
    scope: ClassVar[str] = "api"
    access_format: ClassVar[str] = "{}"
    refresh_format: ClassVar[str] = "{}"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.grants = Grants(
            self.key,
            sandbox.seed,
            sandbox.clock,
            access_format=self.access_format,
            refresh_format=self.refresh_format,
        )
        self._codes = OneTimeTokens(sandbox.clock)

    # What each provider may do differently

    def data(self, request: Request) -> Answer:
        """The answer to every request except those for consent and for tokens. May raise RefusedError."""
        raise NotImplementedError

    def dead_grant(self, token: str, login: Login | None) -> Answer:
        """The answer to a refresh token that is not valid any more; `login` is its login, if it had one."""
        return json_answer(400, {"error": "invalid_grant", "error_description": "The refresh token is not valid"})

    def wrong_client(self) -> Answer:
        """The answer to an application that is unknown or sends a wrong secret."""
        return json_answer(401, {"error": "invalid_client", "error_description": "Unauthorized"})

    def new_code(self) -> str:
        """A new authorization code."""
        return secrets.token_urlsafe(24)

    def callback_parameters(self) -> dict[str, str]:
        """Parameters of the callback other than code and state."""
        return {}

    # Who is calling

    def caller(self, request: Request) -> Caller:
        """The sender of a request; see `core.Profile`."""
        if request.path == self.token_path:
            form = request.form()
            if form.get("grant_type") != "refresh_token":
                return Caller("exchange", login=self._codes.login(form.get("code", "")))
            token = form.get("refresh_token", "")
            found = self.grants.lookup(token)
            if found is None:
                return Caller("refresh", token=token_digest(token))
            grant, generation = found
            return Caller("refresh", grant.login, grant.id, generation, token_digest(token))
        held = self.grants.bearer(request.header("authorization").removeprefix("Bearer "))
        return Caller() if held is None else Caller("data", held.login, held.id, held.generation)

    def authorised(self, request: Request) -> Login:
        """The login of the access token. Raises RefusedError if the token is not valid."""
        scheme, _, token = request.header("authorization").partition(" ")
        grant = self.grants.bearer(token)
        if scheme != "Bearer" or grant is None or not self.grants.admits(token):
            raise RefusedError(self.error("unauthorized"))
        return self.sandbox.logins[grant.login]

    # Answers

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The answer to one request."""
        try:
            if request.path == self.token_path:
                return self._token(request)
            return self._authorize(request) if request.path == self.authorize_path else self.data(request)
        except RefusedError as refused:
            return refused.answer

    def _token(self, request: Request) -> Answer:
        if request.method != "POST":
            return self.error("method_not_allowed")
        form = request.form()
        by_form = (form.get("client_id", ""), form.get("client_secret", ""))
        if (basic_credentials(request.header("authorization")) or by_form) != self.client:
            return self.wrong_client()
        match form.get("grant_type"):
            case "refresh_token":
                return self._refresh(form.get("refresh_token", ""))
            case "authorization_code":
                return self._exchange(form)
            case _:
                return json_answer(400, {"error": "unsupported_grant_type", "error_description": "grant_type"})

    def _refresh(self, token: str) -> Answer:
        found = self.grants.lookup(token)
        try:
            _, pair = self.grants.refresh(token)
        except DeadGrantError:
            return self.dead_grant(token, self.sandbox.logins[found[0].login] if found else None)
        return self._token_answer(pair, rotated=True)

    def _exchange(self, form: dict[str, str]) -> Answer:
        # A code can be used once: after the first attempt it is invalid, even if the attempt failed.
        handed = self._codes.take(form.get("code", ""))
        if (
            handed is None
            or form.get("redirect_uri") != handed.redirect_uri
            or not _fits(form.get("code_verifier", ""), handed.challenge)
        ):
            return json_answer(400, {"error": "invalid_grant", "error_description": "AuthorizationCode is invalid"})
        _, pair = self.grants.issue(handed.login)
        return self._token_answer(pair, rotated=False)

    def _token_answer(self, pair: TokenPair, *, rotated: bool) -> Answer:
        body: dict[str, Any] = {"expires_in": pair.expires_in, "token_type": "Bearer", "scope": self.scope}
        if pair.refresh_token is not None:
            body["refresh_token"] = pair.refresh_token
        body["access_token"] = pair.access_token
        answer = json_answer(200, body, [(b"cache-control", b"no-store")])
        answer.rotated = rotated
        return answer

    def _authorize(self, request: Request) -> Answer:
        given = request.parameters()
        if given.get("client_id") != self.client[0] or given.get("response_type", "code") != "code":
            raise RefusedError(json_answer(400, {"error": "invalid_client", "error_description": "Unknown client"}))
        mine = (name for name, login in self.sandbox.logins.items() if login.profile is self)
        names = sorted(mine, key=lambda name: self.grants.of_login(name) is not None)
        try:
            return consent_page.decided(self.key, request, names, self._allowed, _denied)
        except ValueError as error:
            raise RefusedError(
                json_answer(400, {"error": "invalid_request", "error_description": str(error)})
            ) from error

    def _allowed(self, given: Mapping[str, str]) -> str:
        name = given.get("login") or self.next_login(lambda name: self.grants.of_login(name) is not None)
        if name is None or name not in self.sandbox.logins:
            raise RefusedError(self.error("not_found"))
        return self.callback_url(self.sandbox.logins[name], given)

    def callback_url(self, login: Login, asked: Mapping[str, str]) -> str:
        """The address to which the browser is sent after the login's owner has consented.

        Raises:
            ValueError: The redirect URI or the challenge cannot be used.
        """
        redirect_uri = _redirect_uri(asked)
        challenge = asked.get("code_challenge", "")
        if challenge and asked.get("code_challenge_method") != "S256":
            raise ValueError("code_challenge_method")
        code = self._codes.hand_out(
            self.new_code(), login.name, self.policy.code_seconds, redirect_uri=redirect_uri, challenge=challenge
        )
        return _with_query(redirect_uri, {"code": code, **self.callback_parameters(), **_state(asked)})

    # What the sandbox asks for

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """The address to which the browser is sent; see `core.Profile`."""
        if asked.get("client_id", self.client[0]) != self.client[0]:
            raise ValueError("client_id is not the application's")
        return {"callback_url": self.callback_url(login, {"redirect_uri": self.redirect_uri, **asked})}

    def mint(self, login: Login) -> dict[str, Any]:
        """Creates tokens without a browser."""
        grant, pair = self.grants.issue(login.name)
        return {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "expires_in": pair.expires_in,
            "grant": grant.id,
            "grant_expires_in": self.policy.grant_seconds,
        }

    def revoke(self, login: Login) -> None:
        """Ends the login's consent, as its owner would do it."""
        grant = self.grants.of_login(login.name)
        if grant is not None:
            self.grants.kill(grant, "revoked")

    def expire_access(self, login: Login) -> None:
        """Makes the login's access tokens expire now."""
        grant = self.grants.of_login(login.name)
        if grant is not None:
            self.grants.expire_access(grant)

    def configure(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Changes members of the policy and returns all of them."""
        changed = super().configure(policy)
        self.grants.policy = self.policy
        return changed


def _denied(given: Mapping[str, str]) -> str:
    return _with_query(_redirect_uri(given), {"error": "access_denied", **_state(given)})


def _redirect_uri(asked: Mapping[str, str]) -> str:
    """Where the application wants the browser to be sent. Raises ValueError if it cannot be used."""
    redirect_uri = asked.get("redirect_uri", "")
    if not redirect_uri.startswith(("https://", "http://127.0.0.1")):
        raise ValueError("redirect_uri")
    return redirect_uri


def _state(asked: Mapping[str, str]) -> dict[str, str]:
    return {"state": asked["state"]} if "state" in asked else {}


def _with_query(address: str, parameters: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(parameters)}"


def _fits(verifier: str, challenge: str) -> bool:
    if not challenge:
        return True
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return hmac.compare_digest(digest, challenge)
