"""HTML pages, made here: they load nothing, run no script, and their style is allowed by its hash alone."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

_TEMPLATES = Environment(loader=PackageLoader("worker.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of `templates`; whatever is put into it is escaped."""
    text = _TEMPLATES.get_template(template).render(style=_style(), **values)
    policy = f"default-src 'none'; style-src 'sha256-{_style_hash()}'; frame-ancestors 'none'; base-uri 'none'"
    return HTMLResponse(text, status, headers={"Content-Security-Policy": policy})


@cache
def _style() -> str:
    return _TEMPLATES.get_template("style.css").render()


@cache
def _style_hash() -> str:
    return base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
