"""The release before this one, out of the repository's own history."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.environment import ROOT


@dataclass(frozen=True, slots=True)
class Release:
    """A source tree of an older version.

    Attributes:
        version: as its `pyproject.toml` says.
        commit: the last one of that version.
        tree: where its files are.
    """

    version: str
    commit: str
    tree: Path


def previous_release(directory: Path) -> Release:
    """Puts the last commit of the version before this one into `directory`.

    Without that history the test fails, saying what to do: to skip would hide that nothing was checked.
    """
    if not (ROOT / ".git").exists():
        pytest.fail(
            "this source tree has no git history, and so no release before it to run:"
            " clone the repository and run the test there"
        )
    if _git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.fail("the history is cut short, so that the release before is not in it: run git fetch --unshallow")
    current = _version((ROOT / "pyproject.toml").read_text())
    newest_first = _git("log", "--first-parent", "--format=%H", "HEAD", "--", "pyproject.toml").split()
    for commit in newest_first:
        if _version(_git("show", f"{commit}:pyproject.toml")) == current:
            changed_by = commit
            continue
        older = commit if commit == newest_first[0] else _git("rev-parse", f"{changed_by}^").strip()
        return _unpacked(older, directory)
    pytest.fail(f"no commit of pyproject.toml has another version than {current}: there is no release before this one")


def _unpacked(commit: str, directory: Path) -> Release:
    command = ["git", "archive", commit]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")
    return Release(_version((directory / "pyproject.toml").read_text()), commit, directory)


def _version(pyproject: str) -> str:
    return str(tomllib.loads(pyproject)["project"]["version"])


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
