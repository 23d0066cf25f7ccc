"""Makes HTML pages that load nothing and run no script; only their own style is allowed, by its hash."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

_TEMPLATES = Environment(loader=PackageLoader("worker.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page made from a file in `templates`; all values that are inserted are escaped."""
    text = _TEMPLATES.get_template(template).render(style=_style(), **values)
    policy = f"default-src 'none'; style-src 'sha256-{_style_hash()}'; frame-ancestors 'none'; base-uri 'none'"
    return HTMLResponse(text, status, headers={"Content-Security-Policy": policy})


@cache
def _style() -> str:
    return _TEMPLATES.get_template("style.css").render()


@cache
def _style_hash() -> str:
    return base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
