"""What builds and checks this project is named exactly: images and Actions by digest, packages by version and hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / name
    for name in (
        *("Dockerfile", "docker-compose.yml", "Makefile", ".ci/run"),
        *("requirements.lock", "ops/audit.lock", "ops/helm.lock"),
    )
]
WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())
OUR_IMAGES = ("dashtam-worker:", "dashtam-tests:")

IMAGE = re.compile(r"\S+:\S*\d\S*@sha256:[0-9a-f]{64}")
ACTION = re.compile(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")
# One of these makes an install exact: hashes are compared; no index is asked; only this project is installed.
EXACT_INSTALL = ("--require-hashes", "--no-index", "--editable .")


def unpinned(text: str) -> list[str]:
    """The lines that name something by a name that may mean something else tomorrow."""
    text = text.replace("\\\n", " ")
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    found = [
        f"FROM {image}"
        for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        if image not in stages and not IMAGE.fullmatch(image)
    ]
    found += [
        f"image: {image}"
        for image in re.findall(r"^\s+image: (\S+)", text, re.MULTILINE)
        if not image.startswith(OUR_IMAGES) and not IMAGE.fullmatch(image)
    ]
    found += [
        f"uses: {action}"
        for action in re.findall(r"^\s*-? *uses: (.+)$", text, re.MULTILINE)
        if not ACTION.fullmatch(action)
    ]
    found += re.findall(r"^\s*runs-on: \S+-latest", text, re.MULTILINE)
    for command in re.findall(r"pip install[^&|;\n]*|apt-get install[^&|;\n]*|pipx? run[^\n]*|uvx [^\n]*", text):
        if not any(flag in command for flag in EXACT_INSTALL):
            found.append(command)
    return found


def unlocked(lock: str) -> list[str]:
    """The entries of a lock without an exact version and a hash, and those fetched from a place that they name."""
    entries = re.split(r"\n(?=\S)", lock.strip())
    return [
        entry
        for entry in entries
        if not re.match(r"[a-z0-9-]+==[\w.]+( ; .*)? \\\n +--hash=sha256:[0-9a-f]{64}", entry) or "://" in entry
    ]


@pytest.mark.parametrize("path", [*FILES, *WORKFLOWS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_everything_from_outside_is_pinned(path: Path) -> None:
    text = path.read_text()

    assert (unlocked(text) if path.suffix == ".lock" else unpinned(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "FROM python:3.13-slim AS base",
        f"FROM python@sha256:{'0' * 64} AS base",
        "services:\n  postgres:\n    image: postgres:17",
        "steps:\n  - uses: actions/checkout@v4",
        f"steps:\n  - uses: actions/checkout@{'0' * 40}",
        "    runs-on: ubuntu-latest",
        "RUN pip install 'setuptools>=77' wheel",
        "RUN pip install \\\n    --require-hashes -r a.lock && pip install pip-audit==2.10.1",
        "RUN apt-get update && apt-get install -y build-essential",
    ],
)
def test_name_that_may_mean_something_else_tomorrow_is_found(text: str) -> None:
    assert len(unpinned(text)) == 1


@pytest.mark.parametrize(
    "lock",
    [
        "celery>=5 \\\n    --hash=sha256:" + "0" * 64,
        "celery==5.6.3",
        "celery @ https://example.org/celery.whl \\\n    --hash=sha256:" + "0" * 64,
        "--index-url https://example.org/simple",
    ],
)
def test_lock_entry_that_is_not_exact_is_found(lock: str) -> None:
    assert len(unlocked(lock)) == 1
