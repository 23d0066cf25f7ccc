"""Saves how many steps the sandbox's books have made, for the next start; and checks whether an address answers."""

from __future__ import annotations

import time
import urllib.request
from http import HTTPStatus
from pathlib import Path

import msgspec

_ANSWER_SECONDS = 1.0


class Progress:
    """The number of steps that the books have made, so that a new sandbox can repeat them.

    Args:
        path: the file with the number and the day.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def steps(self) -> int:
        """The number of steps that a new sandbox must repeat."""
        return 0 if self.is_of_another_day else int(self._kept.get("steps", "0"))

    @property
    def is_of_another_day(self) -> bool:
        """Whether the number is of an earlier day. A new sandbox then has other books: their dates follow the day."""
        return self._kept.get("day", _today()) != _today()

    def save(self, steps: int) -> None:
        """Saves the number, with today's date."""
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
    """Whether one of our own addresses answers within a second."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - loopback
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False
