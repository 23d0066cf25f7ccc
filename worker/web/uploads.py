"""Bodies that are files of banks. They may be longer than others, so they are read after the sender is known.

One at a time is in the memory of a process, because a tree of XML takes much more than its file; others wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException, Request
from starlette.types import Message

from worker.integrations.kit.base import MOST_FILE_BYTES
from worker.services.linking import sessions
from worker.web import forms
from worker.web.asking import Services
from worker.web.link_pages import Holding

AT_ONCE = 1
_FORM_BYTES = 64 * 1024
_PATIENCE = 6
"""How many times longer than another body a file may take to arrive."""


def has_file(path: str) -> bool:
    """Whether the body of a request to this path is a file, which its route reads by `arriving` alone."""
    path = path.removesuffix("/")
    return path == "/api/v1/imports" or (path.startswith("/link/") and path.endswith("/file"))


async def arriving(request: Request) -> AsyncIterator[bytes]:
    """The body. It must be a later dependency of a route than the one that knows the sender.

    Raises:
        HTTPException: 413 if it is longer than the longest file; 408 if it does not arrive in time. Nothing was read.
    """
    seconds = _PATIENCE * request.app.state.runtime.settings.web_body_seconds
    async with AsyncExitStack() as held:
        try:
            async with asyncio.timeout(seconds):
                await held.enter_async_context(request.app.state.uploads)
                content = await _read(request)
        except TimeoutError:
            told = f"the file did not arrive within {seconds:g} seconds, or others took as long; nothing was stored"
            raise HTTPException(408, told, {"Connection": "close"}) from None
        yield content


Arriving = Annotated[bytes, Depends(arriving)]


async def _read(request: Request) -> bytes:
    told, body = request.headers.get("content-length", "0"), bytearray()
    if not told.isdigit() or len(told) > 18 or int(told) > MOST_FILE_BYTES + _FORM_BYTES:
        raise _too_long()
    async for part in request.stream():
        body += part
        if len(body) > MOST_FILE_BYTES + _FORM_BYTES:
            raise _too_long()
    return bytes(body)


def _too_long() -> HTTPException:
    told = f"the file has more than {MOST_FILE_BYTES >> 20} MiB; nothing was stored"
    return HTTPException(413, told, {"Connection": "close"})


async def known(session_id: UUID, held: Holding, runtime: Services) -> None:
    """Raises what `sessions.look` raises. Only then the file is read."""
    await sessions.look(runtime, session_id, held)


async def uploaded(
    request: Request, held: Holding, _: Annotated[None, Depends(known)], content: Arriving
) -> tuple[bytes, dict[str, str]]:
    """The file of a form of ours, and its other fields without the token.

    Raises:
        NotPermitted: the form is not one that this browser got from us.
        HTTPException: 400; it cannot be read, or has no file.
    """

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    async with Request(request.scope, receive).form(max_files=1, max_fields=10) as given:
        fields = {name: value for name, value in given.items() if isinstance(value, str)}
        forms.require(request, held.browser, fields.pop("form_token", None))
        file = given.get("file")
        if file is None or isinstance(file, str):
            raise HTTPException(400, "the form has no file; nothing was stored")
        return await file.read(), fields


Uploaded = Annotated[tuple[bytes, dict[str, str]], Depends(uploaded)]


def options_of(form: Mapping[str, str]) -> dict[str, str]:
    """What the field `columns` says, one NAME=VALUE on each line; other lines are left out."""
    pairs = [line.partition("=") for line in form.get("columns", "").splitlines()]
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}
