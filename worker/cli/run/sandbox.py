"""The sandbox as `dashtam run` uses it: its switches, and how far its books have moved."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from worker.errors import DashtamError

_SECONDS = 10.0
_ANSWER_SECONDS = 1.0


class SandboxTrouble(DashtamError):  # noqa: N818 - reads better where it is raised
    """The sandbox did not answer as it should; its log is in the home."""


class SandboxControl:
    """The admin side of a running sandbox.

    Args:
        url: where it listens.
        token: what its admin side asks for.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"x-sandbox-admin": token, "content-type": "application/json"}

    def is_up(self) -> bool:
        """Whether it answers yet."""
        try:
            self._call("/admin/ready")
        except SandboxTrouble:
            return False
        return True

    def steps(self) -> int:
        """How often its books have moved."""
        return int(self._call("/admin/ready")["steps"])

    def advance(self, steps: int) -> None:
        """Moves the books on."""
        if steps:
            self._call("/admin/advance", {"steps": steps})

    def link(self, login: str, asked: Mapping[str, str]) -> dict[str, str]:
        """What a login's owner hands over to be linked, by the names of the fields of the link form.

        Args:
            login: whose.
            asked: the parameters of the address where the owner consents; empty when there is none.
        """
        form: dict[str, str] = self._call(f"/admin/link/{login}", dict(asked))
        return form

    def served(self) -> dict[str, dict[str, int]]:
        """By login: how many distinct things its client was told of."""
        served: dict[str, dict[str, int]] = self._call("/admin/served")
        return served

    def books(self, login: str) -> dict[str, int]:
        """How many accounts, transactions and holdings a login has."""
        books = self._call(f"/admin/books/{login}")
        return {noun: len(books[noun]) for noun in ("accounts", "transactions", "holdings")}

    def _call(self, path: str, body: object = None) -> Any:
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(self._url + path, data=data, headers=self._headers)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as refused:
            raise SandboxTrouble(f"the sandbox answered {path} with {refused.code}: {_reason(refused)}") from None
        except (OSError, msgspec.DecodeError) as error:
            raise SandboxTrouble(f"the sandbox did not answer {path} ({type(error).__name__})") from None


def _reason(refused: urllib.error.HTTPError) -> str:
    try:
        return str(msgspec.json.decode(refused.read())["error"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return str(refused.reason)


class Progress:
    """How far the books had moved, so that a sandbox that is started anew can be brought to the same place.

    Args:
        path: file that keeps the number and the day.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def steps(self) -> int:
        """Steps to catch up on."""
        return 0 if self.is_of_another_day else int(self._kept.get("steps", "0"))

    @property
    def is_of_another_day(self) -> bool:
        """Whether the books have begun anew since: their dates follow the day on which a sandbox starts."""
        return self._kept.get("day", _today()) != _today()

    def save(self, steps: int) -> None:
        """Keeps the number."""
        self._path.write_bytes(msgspec.json.encode({"steps": str(steps), "day": _today()}))

    @property
    def _kept(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def answers(url: str) -> bool:
    """Whether somebody answers at this address of our own, within a second."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - loopback
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False
