"""What the pages of a link session show at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse

from worker.errors import DashtamError, ProviderError
from worker.integrations.kit.integration import Integration
from worker.models.link_session import LinkSessionRow
from worker.models.vocabulary import LinkSessionState
from worker.services.context import Context
from worker.services.linking import begin, return_urls, sessions
from worker.services.linking.begin import LinkBegun
from worker.services.linking.duplicates import LinkedAlready
from worker.services.linking.sessions import FormOpened, Held
from worker.services.sync.importing import ALIAS
from worker.text.mail_addresses import hinted
from worker.web import cookies, forms, problems
from worker.web.cookies import OpenForm
from worker.web.pages import page, told

_MOST_FIELDS = 20
_NOUNS = {
    "accounts": "accounts",
    "balances": "balances",
    "holdings": "positions",
    "liabilities": "terms of cards and loans",
    "transactions": "transactions",
}
_ENDS = {
    LinkSessionState.LINKED: ("The login is linked", "Its accounts are being read."),
    LinkSessionState.CANCELLED: ("Nothing was linked", "You ended this before a login was linked."),
    LinkSessionState.EXPIRED: (
        "This is over",
        "It took too long, or its permission was withdrawn. Begin anew.",
    ),
}


def held_by(session_id: UUID, request: Request) -> Held:
    """What the browser holds of the session."""
    return cookies.held(request, session_id)


Holding = Annotated[Held, Depends(held_by)]


async def filled(request: Request, held: Holding) -> dict[str, str]:
    """The fields of a form of ours, without its token.

    Raises:
        NotPermitted: the form is not one that this browser got from us.
        HTTPException: 400; it cannot be read.
    """
    async with request.form(max_files=0, max_fields=_MOST_FIELDS) as given:
        fields = {name: value for name, value in given.items() if isinstance(value, str)}
    if len(given.multi_items()) != len(fields):
        raise HTTPException(400, "a field of the form came twice, or as a file; nothing was changed")
    forms.require(request, held.browser, fields.pop("form_token", None))
    return fields


Filled = Annotated[dict[str, str], Depends(filled)]


def institutions(runtime: Context, row: LinkSessionRow, held: Held) -> HTMLResponse:
    """The institutions from which the person chooses one."""
    if row.state != LinkSessionState.OPEN:
        return ended(row)
    offered = sorted(runtime.integrations.values(), key=lambda integration: integration.name)
    return page("link_choose.html", offered=offered, **_common(row, held))


async def start(
    runtime: Context,
    row: LinkSessionRow,
    held: Held,
    integration: Integration,
    *,
    error: DashtamError | None = None,
    alias: str = "",
    columns: Mapping[str, str] | None = None,
    asks_anyway: bool = False,
) -> HTMLResponse:
    """Says who asks for what, and has the form of the link kind; after an error, says what happened.

    `columns`: what the columns of a file mean, as it was filled in or is proposed. `asks_anyway`: the form asks whether
    to link a login a second time.
    """
    if row.state != LinkSessionState.OPEN:
        return ended(row)
    kind, choices = integration.link_kind, dict[str, Any]()
    by_hand = not kind.redirects and integration.front_end is None
    try:
        choices = await begin.choices(runtime, integration.key)
    except ProviderError as unreachable:
        error = error or unreachable
    return page(
        "link_start.html",
        status=200 if error is None else problems.status_of(error),
        told="" if error is None else _sentence(error),
        asks_anyway=asks_anyway or isinstance(error, LinkedAlready),
        integration=integration,
        nouns=[_NOUNS[noun] for noun in integration.nouns if noun in _NOUNS],
        fields=kind.fields if by_hand else kind.asks,
        choices=choices,
        asks_alias=row.alias is None and row.provider_id is None,
        alias=alias or (ALIAS if integration.reads_files else integration.name),
        columns="\n".join(f"{name}={value}" for name, value in (columns or {}).items()),
        **_common(row, held, f"/{integration.key}/file" if integration.reads_files else f"/{integration.key}"),
    )


def after(
    step: LinkBegun | FormOpened | LinkSessionRow,
    row: LinkSessionRow,
    held: Held,
    integration: Integration,
    request: Request,
    *,
    alias: str,
    seconds: int,
) -> HTMLResponse:
    """The page after the person has pressed the button: on to the provider, its own form, or the end."""
    if isinstance(step, LinkSessionRow):
        return ended(step)
    if isinstance(step, LinkBegun):
        title = f"On to {integration.name}"
        response = leaving(title, "You consent there, and come back here.", step.url, integration.name)
        cookies.keep(response, request, step, seconds=seconds)
        return response
    form = OpenForm(row.id, step.token.link_token, step.renewing, alias, step.anyway)
    response = _front_end(form, row, held, integration)
    cookies.keep_form(response, request, integration.key, form, seconds=seconds)
    return response


async def form_again(runtime: Context, request: Request, provider_key: str) -> HTMLResponse | None:
    """The page with the provider's own form, for a browser that an institution has sent back to this address.

    The form goes on where it was. None if this is another kind of return.
    """
    form, integration = cookies.open_form(request, provider_key), runtime.integrations.get(provider_key)
    if form is None or integration is None or integration.front_end is None or request.query_params.get("state"):
        return None
    held = cookies.held(request, form.session_id)
    row = await sessions.look(runtime, form.session_id, held)
    if row.state != LinkSessionState.OPEN:
        return ended(row)
    return _front_end(form, row, held, integration, returned_to=str(request.url))


def _front_end(
    form: OpenForm, row: LinkSessionRow, held: Held, integration: Integration, *, returned_to: str = ""
) -> HTMLResponse:
    front_end = integration.front_end
    if front_end is None:
        raise RuntimeError(f"{integration.key} has opened a form that it does not have")
    response = page(
        "link_front_end.html",
        allow={
            "script-src": ["'self'", front_end.script],
            "frame-src": front_end.frames or ["'none'"],
            "connect-src": front_end.calls or ["'none'"],
        },
        integration=integration,
        script=front_end.script,
        form=form,
        returned_to=returned_to,
        **_common(row, held, f"/{integration.key}"),
    )
    # The institution's own login may come in a window of its own, which must be able to tell this page that it is done.
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
    return response


def linked(row: LinkSessionRow | None, alias: str) -> HTMLResponse:
    """The page on which a browser lands that has completed a link."""
    if row is not None:
        return ended(row)
    return told("The login is linked", f"{alias} is linked, and its accounts are being read. You may close this page.")


def not_linked(
    row: LinkSessionRow | None, provider_key: str, error: DashtamError, *, status: int, began_here: bool
) -> HTMLResponse:
    """The page on which a browser lands that has completed nothing. In a link session, the person can try again.

    `began_here`: this browser holds the cookie of the link.
    """
    if row is not None and row.state != LinkSessionState.OPEN:
        return ended(row)
    again = None if row is None else _action(row.id, f"/{provider_key}")
    if again is not None and isinstance(error, LinkedAlready):
        again += "?twice=ask"
    title = "This login was not linked"
    return page(
        "link_failed.html", status=status, title=title, text=_sentence(error), again=again, began_here=began_here
    )


def ended(row: LinkSessionRow) -> HTMLResponse:
    """The page of a session that has ended. If there is an address to go back to, it leads there."""
    title, text = _ENDS[LinkSessionState(row.state)]
    address = return_urls.with_result(row)
    if address is None:
        return told(title, f"{text} You may close this page.")
    return leaving(title, text, address, row.asked_by)


def leaving(title: str, text: str, address: str, where: str) -> HTMLResponse:
    """A page that leads to an address of somebody else.

    It is no redirect: for an answer to a form, the page's policy would have to name every address on the way.
    """
    return page("leaving.html", title=title, text=text, address=address, where=where)


def _common(row: LinkSessionRow, held: Held, path: str = "") -> dict[str, Any]:
    return {
        "row": row,
        "whose": hinted(row.user) if row.user else None,
        "back": None if row.return_url is None else urlsplit(row.return_url).hostname,
        "action": _action(row.id, path),
        "form_token": forms.token(held.browser, _action(row.id, path)),
        "cancel_action": _action(row.id),
        "cancel_token": forms.token(held.browser, _action(row.id)),
    }


def _action(session_id: UUID, path: str = "") -> str:
    return f"/link/{session_id}{path}"


def _sentence(error: DashtamError) -> str:
    told = str(error)
    return f"{told[:1].upper()}{told[1:]}."
