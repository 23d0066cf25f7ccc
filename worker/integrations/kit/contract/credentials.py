"""Checks of an integration's attributes, and of linking, refreshing and ending a grant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import httpx

from worker.errors import ProviderError, ReauthRequired, Transient, Unsupported
from worker.integrations.kit.base import Caller, Quota, RefreshPolicy
from worker.integrations.kit.contract.subject import Subject, every, require
from worker.integrations.kit.link_kinds import LinkKind
from worker.integrations.kit.required import missing_of
from worker.telemetry.redaction import MASK, redact

_SCOPES = ("app", "provider", "account")


def it_says_what_it_is(subject: Subject) -> None:
    """The class has all attributes that other parts of the worker read, with values that they can use."""
    integration = subject.integration
    require(not missing_of(integration), f"it lacks {', '.join(missing_of(integration))}")
    require(integration.name, "`name` is shown to people and must not be empty")
    require(isinstance(integration.link_kind, LinkKind), "`link_kind` must be one of `kit.link_kinds`")
    policy = integration.refresh_policy
    require(policy is None or isinstance(policy, RefreshPolicy), "`refresh_policy` must be a RefreshPolicy or None")
    require(all(isinstance(quota, Quota) for quota in integration.quotas), "`quotas` must be Quotas")
    scopes = {quota.scope for quota in integration.quotas}
    require(scopes <= set(_SCOPES), f"the scope of a quota is one of {', '.join(_SCOPES)}")
    require(integration.mapping_version >= 1, "`mapping_version` begins at 1 and grows whenever mapping changes")
    require(integration.error_rules, "`error_rules` must be the provider's table of errors")
    for rule in integration.error_rules:
        require(issubclass(rule.error, ProviderError), f"an error rule names {rule.error}, which is no ProviderError")
    require(subject.stand_in.key == integration.key, "the stand-in must have the integration's `key`")


def settings_do_not_show_their_secrets(subject: Subject) -> None:
    """The `repr` of the settings shows no secret: secrets are `SecretStr`s."""
    trial = subject.connected()
    for secret in trial.secrets:
        require(secret not in repr(trial.settings), "`settings_class` must declare secrets as SecretStr")


def authorize_url_is_there_exactly_where_the_user_is_redirected(subject: Subject) -> None:
    """There is an authorize URL only if the link kind redirects. It contains no secret, and the state comes back."""
    trial = subject.connected()
    if not subject.integration.link_kind.redirects:
        _must_be_unsupported(lambda: trial.integration.authorize_url("state-1"), "authorize_url")
        return
    challenge = "challenge-1" if subject.integration.link_kind.pkce else None
    url = httpx.URL(asyncio.run(trial.consent_url("state-1", challenge)))
    landed = httpx.URL(trial.profile.consent(trial.login, dict(url.params))["callback_url"])
    require(landed.params.get("state") == "state-1", "`authorize_url` must carry the state, which must come back")
    require(url.params.get("code_challenge") == challenge, "`authorize_url` must carry the challenge exactly for PKCE")
    require(not [secret for secret in trial.secrets if secret in str(url)], "`authorize_url` must not hold a secret")


def _must_be_unsupported(call: Callable[[], object], name: str) -> None:
    try:
        call()
    except Unsupported:
        return
    except ProviderError as error:
        raise AssertionError(f"`{name}` must raise Unsupported; it raised {type(error).__name__}") from None
    raise AssertionError(f"`{name}` must raise Unsupported: the declarations say that there is no such thing")


def exchange_gives_a_token_that_its_repr_does_not_show(subject: Subject) -> None:
    """An exchange returns a token; its `repr` does not show it, and it is masked in every log."""
    trial = subject.connected()
    answer = asyncio.run(trial.link())
    require(answer.access_token, "`exchange` must give an access token")
    require(answer.access_token not in repr(answer), "the repr of a TokenAnswer must not show its tokens")
    expires = answer.grant_expires_at
    require(expires is None or expires > trial.now, "`grant_expires_at` of a new grant must lie ahead")
    if subject.integration.refresh_policy is None:
        require(answer.lifetime is None, "a token that is not refreshed must have no lifetime")
    else:
        require(answer.lifetime, "`exchange` must say how long the access token lives")
    written = redact(f"the provider gave {answer.access_token} today")
    shown = written.replace(MASK, "")
    require(answer.access_token not in shown, "`secret_shapes` must match its tokens: one was written in full to a log")


def refresh_is_there_exactly_when_the_policy_says_so(subject: Subject) -> None:
    """`refresh` works only with a refresh policy. The new token can read, and the end of the grant does not change."""
    trial = subject.connected()
    if subject.integration.refresh_policy is None:
        _must_be_unsupported(lambda: asyncio.run(trial.integration.refresh(Caller(), "refresh-1")), "refresh")
        require(not trial.requests, "`refresh` must send nothing where there is none")
        return

    async def refresh_and_read() -> None:
        first = await trial.link()
        require(first.refresh_token, "`exchange` must give a refresh token where there is a `refresh_policy`")
        second = await trial.integration.refresh(Caller(), first.refresh_token or "")
        require(second.grant_expires_at is None, "a refresh must leave `grant_expires_at` None: it never moves it")
        require(second.lifetime, "`refresh` must say how long the access token lives")
        require(await every(trial.integration.pages(trial.request(second.access_token))), "the new token must read")

    try:
        asyncio.run(refresh_and_read())
    except ProviderError as error:
        raise AssertionError(f"a new token must refresh and read: {type(error).__name__} ({error.reason})") from None


def grant_that_its_owner_has_ended_asks_for_a_new_consent(subject: Subject) -> None:
    """A grant that its owner has ended raises `ReauthRequired`, by the integration's table of errors."""
    trial = subject.connected()
    answer = asyncio.run(trial.link())
    trial.profile.revoke(trial.login)
    work = (
        every(trial.integration.pages(trial.request(answer.access_token)))
        if subject.integration.refresh_policy is None
        else trial.integration.refresh(Caller(), answer.refresh_token or "")
    )
    try:
        asyncio.run(_ended(work))
    except ReauthRequired:
        return
    except ProviderError as error:
        raise AssertionError(f"a grant that was ended must be ReauthRequired, it is {type(error).__name__}") from None
    raise AssertionError("a grant that was ended must be ReauthRequired: see `error_rules` and `token_rules`")


async def _ended(work: object) -> None:
    await work  # type: ignore[misc]


def token_call_is_never_repeated(subject: Subject) -> None:
    """A token call that failed is not sent again, because the provider may already have acted on it."""
    if not subject.integration.link_kind.fields:
        return
    form = asyncio.run(subject.connected().form())
    for failure in (httpx.Response(503, json={"message": "busy"}), httpx.ReadTimeout("silent")):
        trial = subject.connected(_always(failure))
        try:
            asyncio.run(trial.integration.exchange(Caller(), form, now=trial.now))
        except Transient:
            require(len(trial.requests) == 1, "`exchange` must go through `api.send`, which repeats nothing")
        else:
            raise AssertionError("`exchange` must raise what went wrong, here Transient or OutcomeUnknown")


def _always(failure: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        if isinstance(failure, Exception):
            raise failure
        return failure

    return handler


def closing_closes_the_connections(subject: Subject) -> None:
    """`aclose` closes the connections and raises no error."""
    asyncio.run(asyncio.wait_for(subject.connected().integration.aclose(), timedelta(seconds=5).total_seconds()))


CHECKS = (
    it_says_what_it_is,
    settings_do_not_show_their_secrets,
    authorize_url_is_there_exactly_where_the_user_is_redirected,
    exchange_gives_a_token_that_its_repr_does_not_show,
    refresh_is_there_exactly_when_the_policy_says_so,
    grant_that_its_owner_has_ended_asks_for_a_new_consent,
    token_call_is_never_repeated,
    closing_closes_the_connections,
)
