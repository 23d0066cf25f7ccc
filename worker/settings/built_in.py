"""The keys of the built-in integrations, which are folders of `worker/integrations`."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

import worker

_SHARED = "kit"


@cache
def built_in_integrations() -> tuple[str, ...]:
    """Keys of the built-in integrations, in alphabetical order. A key is the name of the integration's folder."""
    folders = (Path(worker.__file__).parent / "integrations").iterdir()
    found = (folder.name for folder in folders if (folder / "__init__.py").is_file())
    return tuple(sorted(name for name in found if name != _SHARED and not name.startswith("_")))


@cache
def needed_variable(key: str) -> str | None:
    """The variable without which a built-in integration is not enabled unless `INTEGRATIONS` names it; None if none.

    An integration's package may state it as `NEEDS`. It is for integrations whose registration most installations do
    not have: an update that brings such an integration must not stop them.
    """
    return getattr(importlib.import_module(f"worker.integrations.{key}"), "NEEDS", None)
