"""The client of a running sandbox's admin API, used by `dashtam run` and `dashtam sandbox`."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from worker.errors import DashtamError, Refused, Unavailable

_SECONDS = 10.0
_ACCESS_FILE = "sandbox.access"


class SandboxTrouble(DashtamError):  # noqa: N818 - reads better where it is raised
    """The sandbox gave a wrong answer or none; its log is in the home."""


class SandboxAway(SandboxTrouble, Unavailable):
    """Nothing answers at the sandbox's address."""


class SandboxControl:
    """The client of a running sandbox's admin API.

    Args:
        url: the address of the sandbox.
        token: the admin token.
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

    def logins(self) -> list[str]:
        """The names of all logins."""
        return [told["login"] for told in self._call("/admin/logins")]

    def steps(self) -> int:
        """How many steps its books have made."""
        return int(self._call("/admin/ready")["steps"])

    def advance(self, steps: int, login: str | None = None) -> None:
        """Changes the books by `steps` steps: those of one login, or of all."""
        if steps:
            self._call("/admin/advance", {"steps": steps, "logins": None if login is None else [login]})

    def revoke(self, login: str) -> None:
        """Ends the consent of a login, as its owner would do it at the provider's site."""
        self._call("/admin/revoke", {"logins": [login]})

    def arm(self, rule: Mapping[str, object]) -> None:
        """Adds a fault: `rule` has the members of `worker.sandbox.faults.Fault` that differ from its defaults."""
        self._call("/admin/faults", dict(rule))

    def disarm(self) -> int:
        """Removes all faults. Returns how many there were."""
        count = len(self._call("/admin/faults"))
        self._call("/admin/faults", method="DELETE")
        return count

    def deliver_hooks(self, manner: Mapping[str, object]) -> None:
        """Changes how hooks are delivered: `manner` has members of `worker.sandbox.hooks.Manner`."""
        self._call("/admin/hooks", dict(manner))

    def send_hooks(self, login: str, count: int) -> int:
        """Sends hooks about new data of a login. Returns how many the provider has sent."""
        return int(self._call(f"/admin/hooks/{login}", {"event": "changed", "count": count})["sent"])

    def hooks(self) -> list[dict[str, Any]]:
        """What became of the hooks, oldest first; members of `worker.sandbox.hooks.Delivered`."""
        told: list[dict[str, Any]] = self._call("/admin/hooks")
        return told

    def link(self, login: str, asked: Mapping[str, str]) -> dict[str, str]:
        """What a login's owner enters to link it, by the names of the fields of the link form.

        Args:
            login: the login's name.
            asked: the parameters of the address where the owner consents; empty if there is no such address.
        """
        form: dict[str, str] = self._call(f"/admin/link/{login}", dict(asked))
        return form

    def served(self) -> dict[str, dict[str, int]]:
        """By login: how many distinct things its client has received."""
        served: dict[str, dict[str, int]] = self._call("/admin/served")
        return served

    def books(self, login: str) -> dict[str, int]:
        """How many accounts, transactions and holdings a login has."""
        books = self._call(f"/admin/books/{login}")
        return {noun: len(books[noun]) for noun in ("accounts", "transactions", "holdings")}

    def _call(self, path: str, body: object = None, method: str | None = None) -> Any:
        data = None if body is None else msgspec.json.encode(body)
        address = self._url + path
        request = urllib.request.Request(address, data, self._headers, method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as refused:
            raise SandboxTrouble(f"the sandbox answered {path} with {refused.code}: {_reason(refused)}") from None
        except (OSError, msgspec.DecodeError) as error:
            raise SandboxAway(f"the sandbox did not answer {path} ({type(error).__name__})") from None


def _reason(refused: urllib.error.HTTPError) -> str:
    try:
        return str(msgspec.json.decode(refused.read())["error"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return str(refused.reason)


def access_file(home: Path) -> Path:
    """The file in which `dashtam run` writes the address and the admin token of its sandbox."""
    return home / _ACCESS_FILE


def access_text(url: str, token: str) -> str:
    """The content of that file."""
    return msgspec.json.encode({"url": url, "token": token}).decode() + "\n"


def control_of(home: Path) -> SandboxControl:
    """The client for the sandbox of the `dashtam run` that uses this home.

    Raises:
        Refused: the home has no file with the address of a sandbox.
    """
    try:
        access = msgspec.json.decode(access_file(home).read_bytes(), type=dict[str, str])
        return SandboxControl(access["url"], access["token"])
    except (OSError, KeyError, msgspec.DecodeError):
        raise Refused(
            f"no sandbox has been started in {home}; nothing was changed. Start one in another terminal: dashtam run"
        ) from None
