"""The dependencies of routes: the services' context, the API key of the request, and the function that sends a task."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from worker.models.vocabulary import KeyScope
from worker.services.access import keys
from worker.services.access.keys import Principal
from worker.services.access.logins import Totals
from worker.services.context import Context
from worker.services.fleet.asking import Send

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="dashtam_…",
    description="A key that `dashtam api-keys create --name app` makes.",
)


# These are coroutines because FastAPI runs every other function in a thread, which costs more than the function itself.


async def context(request: Request) -> Context:
    """The context for services."""
    found: Context = request.app.state.runtime
    return found


async def sender(request: Request) -> Send:
    """The function that sends a task to the workers."""
    found: Send = request.app.state.send
    return found


async def totals(request: Request) -> Totals:
    """The numbers of logins that this process remembers."""
    found: Totals = request.app.state.totals
    return found


async def authenticate(
    request: Request,
    scopes: SecurityScopes,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """The sender of a request, found by the API key.

    Raises:
        NotAuthenticated: there is no key, or it is not valid.
        NotPermitted: the key lacks one of the route's scopes.
        HTTPException: 429; too many requests with this key.
    """
    runtime: Context = request.app.state.runtime
    principal = await keys.authenticate(runtime, None if given is None else given.credentials)
    await require_rate(request, principal)
    keys.require(principal, scopes.scopes)
    return principal


async def require_rate(request: Request, principal: Principal) -> None:
    """Counts a request with this key. Raises `HTTPException` 429 if there are too many."""
    rate = request.app.state.runtime.settings.web_key_rate
    wait_s = await request.app.state.rates.wait(rate, "key", principal.prefix)
    if wait_s is not None:
        seconds = max(1, round(wait_s))
        told = f"this API key may ask {rate}: try again in {seconds} s"
        raise HTTPException(429, told, {"Retry-After": str(seconds)})


Services = Annotated[Context, Depends(context)]
Numbers = Annotated[Totals, Depends(totals)]
Tasks = Annotated[Send, Depends(sender)]
Reader = Annotated[Principal, Security(authenticate, scopes=[KeyScope.READ])]
Linker = Annotated[Principal, Security(authenticate, scopes=[KeyScope.LINK])]
Subscriber = Annotated[Principal, Security(authenticate, scopes=[KeyScope.HOOKS])]
Operator = Annotated[Principal, Security(authenticate, scopes=[KeyScope.OPERATE])]
