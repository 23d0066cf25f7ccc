"""Writes the folder of a new integration for `dashtam integrations new`; it works against its own stand-in."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from worker import integrations
from worker.errors import DashtamError

_KEY = re.compile(r"[a-z][a-z0-9_]{0,30}")
_PACKAGED = {
    "pyproject.txt": "pyproject.toml",
    "integration.txt": "{package}/__init__.py",
    "stand_in.txt": "{package}/stand_in.py",
    "test_contract.txt": "tests/test_contract.py",
}
_OURS = {"package.txt": "__init__.py", "integration.txt": "integration.py", "stand_in.txt": "stand_in.py"}


class KeyRefused(DashtamError):  # noqa: N818 - reads better where it is raised
    """The key cannot be used; nothing was written."""


def write_new(key: str, directory: Path, *, taken: frozenset[str]) -> Path:
    """Writes a folder for `key`.

    In the worker's own folder of integrations, it is a package of the worker (`<key>/`). Anywhere else, it is a
    separate distribution (`dashtam-<key>/`) with the entry point by which the registry finds it.

    Args:
        key: the new integration's key.
        directory: the folder is written into it; it is created if it does not exist.
        taken: the keys of the integrations that exist.

    Returns:
        The folder.

    Raises:
        KeyRefused: the key is taken, or cannot be a name in Python and in a URL, or the folder already exists.
    """
    if not key.isidentifier() or keyword.iskeyword(key) or not _KEY.fullmatch(key):
        raise KeyRefused(
            f"{key!r} cannot be a key: it must begin with a small letter, have small letters, digits and _ only, and "
            "be no keyword of Python; nothing was written"
        )
    folder_of_ours = Path(next(iter(integrations.__path__)))
    if key in taken or (folder_of_ours / key).exists() or (folder_of_ours / f"{key}.py").exists():
        raise KeyRefused(f"{key} exists already; nothing was written. Choose another key")
    is_ours = directory.resolve() == folder_of_ours.resolve()
    package = f"{integrations.__name__}.{key}" if is_ours else f"dashtam_{key}"
    folder = directory / (key if is_ours else f"dashtam-{key.replace('_', '-')}")
    if folder.exists():
        raise KeyRefused(f"{folder} exists already; nothing was written. Choose another key, or another --in")
    words = {
        "key": key,
        "name": key.replace("_", " ").title(),
        "class_name": key.title().replace("_", ""),
        "prefix": key.upper(),
        "package": package,
        "distribution": folder.name,
    }
    written = {
        folder / place.format(package=package): Template(_template(name)).substitute(words)
        for name, place in (_OURS if is_ours else _PACKAGED).items()
    }
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def _template(name: str) -> str:
    return (files("worker.integrations.kit") / "template" / name).read_text(encoding="utf-8")
