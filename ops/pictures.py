"""Takes the pictures of the terminal and of the pages in `docs/images` from a real `dashtam run`: `make pictures`."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.support.browsing import browser
from worker.cli.demo_logins import LOGINS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
_DASHTAM = str(Path(sys.executable).with_name("dashtam"))
_WIDTH, _HEIGHT = 112, 50
_SCREEN: ViewportSize = {"width": 1200, "height": 820}
_PHONE: ViewportSize = {"width": 400, "height": 820}
_LARGEST = 150_000
_KEY = re.compile(r"dashtam_[0-9a-f]{8}_[\w-]{43}")
_PATIENCE_SECONDS = 180.0
# Rich names a font on a foreign host; a picture must not ask anybody for anything.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
# Between two frames, rich moves up and erases what it has drawn.
_REDRAWN = re.compile(r"(?:\r?\x1b\[(?:2K|1A|\?25[lh]))+")


def _in(home: Path) -> list[str]:
    """The beginning of a command that works in this home, and in colour."""
    return ["env", "-u", "NO_COLOR", "-u", "COLUMNS", "-u", "CI", f"DASHTAM_HOME={home}"]


class Terminal:
    """A command in a terminal of its own.

    Attributes:
        output: all that it has written.
    """

    def __init__(self, home: Path, *arguments: str) -> None:
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _HEIGHT, _WIDTH, 0, 0))
        self.process = subprocess.Popen(
            [*_in(home), "TERM=xterm-256color", "COLORTERM=truecolor", _DASHTAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        self.output = ""
        self._thread = threading.Thread(target=self._read, args=(mine,), daemon=True)
        self._thread.start()

    def _read(self, terminal: int) -> None:
        with os.fdopen(terminal, "rb", buffering=0) as file:
            while True:
                try:
                    read = file.read(65536)
                except OSError:  # the last writer has closed its side
                    return
                if not read:
                    return
                self.output += read.decode(errors="replace")

    def frame(self) -> str:
        """What has been drawn last, and is complete."""
        *_, last, _ = ["", "", *_REDRAWN.split(self.output)]
        return last

    def end(self) -> str:
        """Waits for its end. Returns all that it wrote."""
        self.process.wait(timeout=_PATIENCE_SECONDS)
        self._thread.join(timeout=_PATIENCE_SECONDS)
        return self.output


@contextmanager
def demonstration(home: Path) -> Iterator[Terminal]:
    """A `dashtam run`, ended at the end of the block."""
    terminal = Terminal(home, "run")
    try:
        yield terminal
    finally:
        terminal.process.send_signal(signal.SIGINT)
        terminal.process.wait(timeout=_PATIENCE_SECONDS)


def asked(home: Path, *arguments: str) -> object:
    """What a command with --json answers; None when it does not succeed."""
    done = subprocess.run(
        [*_in(home), _DASHTAM, *arguments, "--json"],
        capture_output=True,
        check=False,
        timeout=_PATIENCE_SECONDS,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def wait_until_everything_has_happened(home: Path) -> None:
    """Until every login was synced, and refreshed where it is refreshed at all."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        logins = asked(home, "providers")
        if isinstance(logins, list) and len(logins) == len(LOGINS) and all(map(_has_happened, logins)):
            return
        time.sleep(1)
    raise SystemExit(f"nothing to take a picture of after {_PATIENCE_SECONDS:.0f} s; see {home / 'log'}")


def _has_happened(login: dict[str, str | None]) -> bool:
    is_refreshed = bool(login["refreshed_at"]) or login["refresh_due_at"] is None
    return bool(login["synced_at"]) and is_refreshed


def draw(name: str, title: str, written: str, home: Path) -> None:
    """Writes one picture, without what is this machine's own."""
    text = re.sub(r"(password \x1b\[1m).*?(\x1b\[0m)", r"\1…\2", written.replace("\r\n", "\n").replace("\r", ""))
    text = _KEY.sub("dashtam_…", text).replace(str(home), ".dashtam").strip("\n")
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Text.from_ansi(text), soft_wrap=True)
    picture = console.export_svg(title=title, code_format=_FORMAT, unique_id=name)
    (IMAGES / f"{name}.svg").write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n")


def photograph(chromium: Browser, home: Path, name: str, *, login: str = "", phone: bool = False) -> None:
    """Writes one picture of the status page, or of the page of one login; a telephone shows it dark."""
    context = chromium.new_context(viewport=_PHONE if phone else _SCREEN, color_scheme="dark" if phone else "light")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{_variable(home, 'WEB_PORT')}/login#{(home / 'api.key').read_text().strip()}")
    page.wait_for_url("**/status")
    if login:
        page.get_by_role("link", name=login).click()
        page.wait_for_url("**/logins/*")
    page.get_by_text("live", exact=True).wait_for()
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, full_page=not phone)
    context.close()
    if path.stat().st_size > _LARGEST:
        raise SystemExit(f"{path} is larger than {_LARGEST} bytes")


def _variable(home: Path, name: str) -> str:
    """A variable of the running demonstration."""
    found = re.search(rf"^{name}=['\"]?([^'\"\n]*)", (home / "run.env").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{home / 'run.env'} has no {name}")
    return found[1]


def main() -> None:
    """Takes them all."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".dashtam"
        with demonstration(home) as run, browser() as chromium:
            wait_until_everything_has_happened(home)
            time.sleep(3)
            draw("run", "make run", run.frame(), home)
            photograph(chromium, home, "status")
            asked(home, "sandbox", "revoke", "Plaid one")
            asked(home, "sync", "Plaid one", "--wait")
            draw("explain", 'dashtam explain "Plaid one"', Terminal(home, "explain", "Plaid one").end(), home)
            photograph(chromium, home, "status-login", login="Plaid one", phone=True)


if __name__ == "__main__":
    main()
