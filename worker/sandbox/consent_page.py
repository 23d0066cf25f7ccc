"""The page on which a login's owner consents in a browser, for stand-ins with OAuth 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape

from worker.sandbox.wire import Answer, Request

DECISION = "decision"
ALLOW, DENY = "allow", "deny"

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sandbox: consent</title><link rel="icon" href="data:,"></head>
<body>
<main>
<h1>Sandbox: {title}</h1>
<p>This page stands in for the provider. An application asks to read the accounts of a login.</p>
<form>
{asked}
<p><label for="login">Login</label> <select id="login" name="login">{logins}</select></p>
<p><button name="decision" value="allow">Consent</button> <button name="decision" value="deny">Decline</button></p>
</form>
</main>
</body>
</html>
"""


def wanted(request: Request) -> bool:
    """Whether the page is to be shown: a browser asks, and its user has not decided yet."""
    return "text/html" in request.header("accept") and DECISION not in request.parameters()


def page(title: str, asked: Mapping[str, str], logins: Iterable[str]) -> Answer:
    """The page.

    Args:
        title: the provider.
        asked: the parameters with which the application asks for consent; they are sent again with the decision.
        logins: the names of the logins that can be chosen.
    """
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items()
    )
    options = "".join(f"<option>{escape(login)}</option>" for login in logins)
    body = _PAGE.format(title=escape(title), asked=hidden, logins=options)
    return Answer(200, body.encode(), [(b"content-type", b"text/html; charset=utf-8")])


def decided(
    title: str,
    request: Request,
    logins: Iterable[str],
    allowed: Callable[[Mapping[str, str]], str],
    denied: Callable[[Mapping[str, str]], str],
) -> Answer:
    """The page, or the address to which the browser goes when its user has decided.

    Args:
        title: the provider.
        request: the browser's request; its parameters are what the application asks for, and the decision.
        logins: the names of the logins that can be chosen.
        allowed: the address after a consent, which a request without any decision stands for, too.
        denied: the address after a refusal.
    """
    given = request.parameters()
    if wanted(request):
        return page(title, given, logins)
    address = (denied if given.get(DECISION) == DENY else allowed)(given)
    return Answer(302, b"", [(b"location", address.encode())])
