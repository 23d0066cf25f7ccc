"""How far the sandbox's books have moved, for a sandbox that is started anew; and whether an address answers."""

from __future__ import annotations

import time
import urllib.request
from http import HTTPStatus
from pathlib import Path

import msgspec

_ANSWER_SECONDS = 1.0


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
