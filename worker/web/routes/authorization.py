"""Routes for the grant of a login: begin, callback, show, refresh, end.

The state is random, is stored as a hash, and is valid once and for a limited time. It works only together with the
cookie of the browser in which the link began. Without this, an attacker could make another person complete the
attacker's link.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, HTTPException, Query, Request, Response

from worker.errors import ProviderError, Refused
from worker.services.access import authorizing
from worker.services.access.authorizing import Grant
from worker.services.linking.duplicates import LinkedAlready
from worker.web import cookies
from worker.web.asking import Linker, Reader, Services, Tasks
from worker.web.problems import documented
from worker.web.schemas import AuthorizationBegun, AuthorizationState, Authorized, FormTokenResponse, Message

router = APIRouter(prefix="/api/v1/providers/{provider_id}/authorization", tags=["authorization"])


@router.post("", summary="Begin an authorization", responses=documented(400, 401, 403, 404, 422, 502))
async def begin(
    provider_id: UUID,
    request: Request,
    response: Response,
    runtime: Services,
    who: Linker,
    form: Annotated[dict[str, str] | None, Body(examples=[{}], max_length=10)] = None,
) -> AuthorizationBegun:
    """The address at which the user consents, for providers that have one. The body is for those that ask before.

    If the login turns out to be linked already, the callback answers 409, unless the body has `"anyway": "yes"`.
    """
    begun = await authorizing.begin_authorization(runtime, who, provider_id, form or {})
    cookies.keep(response, request, begun, seconds=runtime.settings.link_state_seconds)
    told = "Open auth_url in the browser that got this answer; its cookie ties the way back to it."
    return AuthorizationBegun(auth_url=begun.url, state=begun.state, message=told)


@router.get("", summary="Show an authorization", responses=documented(401, 403, 404, 422))
async def show(provider_id: UUID, runtime: Services, who: Reader) -> AuthorizationState:
    """Whether the login has a grant. A token is never shown."""
    found = await authorizing.grant(runtime, who, provider_id)
    login, token = found.login, found.token
    state = AuthorizationState(provider_id=login.id, alias=login.alias, status="not_connected")
    if token is None or not found.is_connected:
        return state.model_copy(update={"message": f"{login.alias} is {login.state}: its user must link it"})
    facts = {"expires_at": found.access_expires_at, "has_refresh_token": token.has_refresh_token, "scope": token.scope}
    return state.model_copy(update={"status": "connected", **facts})


@router.get("/callback", summary="Come back from the provider", responses=documented(400, 404, 409, 422, 500))
async def callback(
    provider_id: UUID,
    request: Request,
    response: Response,
    runtime: Services,
    code: Annotated[str | None, Query(max_length=4096)] = None,
    state: Annotated[str | None, Query(max_length=200)] = None,
    error: Annotated[str | None, Query(max_length=200)] = None,
) -> Authorized:
    """The provider sends the browser here. It needs no API key, but the state and the cookie of the same browser."""
    return await _complete(runtime, request, response, provider_id)


@router.put("", summary="Authorize with a form", responses=documented(400, 401, 403, 404, 409, 422, 502))
async def fill_in(
    provider_id: UUID,
    runtime: Services,
    who: Linker,
    form: Annotated[dict[str, str], Body(examples=[{"public_token": "…"}], max_length=10)],
) -> Authorized:
    """Links a login with what the provider gave the user: a public token, a key and its secret, or a setup token.

    If the login is linked already, the answer is 409; with `"anyway": "yes"` in the form, it is linked a second time.
    """
    return _authorized(await authorizing.authorize_with_form(runtime, who, provider_id, form))


@router.post("/renewal", summary="Begin a renewal", responses=documented(401, 403, 404, 409, 422, 502))
async def begin_renewal(provider_id: UUID, runtime: Services, who: Linker) -> FormTokenResponse:
    """What opens the provider's own form, in which the user renews the consent; for providers that have one."""
    found = await authorizing.begin_renewal(runtime, who, provider_id)
    return FormTokenResponse(link_token=found.link_token, expires_at=found.expires_at)


@router.put("/renewal", summary="Complete a renewal", responses=documented(401, 403, 404, 409, 422, 502))
async def complete_renewal(provider_id: UUID, runtime: Services, who: Linker) -> Authorized:
    """Makes the login active again after its user has completed that form. Nothing is exchanged."""
    return _authorized(await authorizing.complete_renewal(runtime, who, provider_id))


@router.patch("", summary="Refresh an authorization", responses=documented(401, 403, 404, 409, 422))
async def refresh(provider_id: UUID, runtime: Services, who: Linker, send: Tasks) -> Message:
    """Asks the workers to refresh the token now; `GET …/explain` shows the result."""
    found = await authorizing.refresh(runtime, who, provider_id, send=send)
    return Message(message=f"a refresh of {found.login.alias} was asked for")


@router.delete("", summary="End an authorization", status_code=204, responses=documented(401, 403, 404, 409, 422))
async def end(provider_id: UUID, runtime: Services, who: Linker) -> None:
    """Ends the grant, also at the provider if its API can do this. Synced data is kept."""
    await authorizing.end_authorization(runtime, who, provider_id)


async def _complete(runtime: Any, request: Request, response: Response, provider_id: UUID) -> Authorized:
    came = cookies.came_back(request)
    try:
        found = await authorizing.complete_authorization(runtime, provider_id, query=came.query, holder=came.holder)
    except LinkedAlready:
        raise
    except Refused as error:
        raise HTTPException(400, str(error)) from None
    except ProviderError as error:
        raise HTTPException(500, f"the provider did not take the code ({error}): start linking again") from None
    cookies.forget(response, came)
    return _authorized(found)


def _authorized(found: Grant) -> Authorized:
    token, login = found.token, found.login
    lifetime, scope = (token.lifetime_s, token.scope) if token else (None, None)
    told = f"{login.alias} is linked; its first sync is due"
    return Authorized(message=told, provider_id=login.id, alias=login.alias, expires_in=lifetime, scope=scope)
