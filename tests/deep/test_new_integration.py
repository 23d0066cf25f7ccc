"""docs/adding-an-integration.md, followed to the letter: a new integration is a wheel that nobody else knows of.

Its commands run in a fresh environment and an empty folder. The integration is installed there, and listed, checked,
linked, refreshed and synced against its own stand-in, with not one line of this project changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from urllib.request import HTTPRedirectHandler, build_opener

import pytest
from sqlalchemy import Engine, text

from tests.support.environment import ROOT
from tests.support.waiting import wait_for
from worker.devstack.processes import free_port, port_is_free

pytestmark = [pytest.mark.deep, pytest.mark.long]

TEXT = (ROOT / "docs" / "adding-an-integration.md").read_text()
PORT_OF_THE_DOCS = "8765"
BASH = shutil.which("bash") or "/bin/bash"
PROVIDER = "SELECT status, generation FROM providers JOIN provider_tokens ON provider_id = id"
ROWS = "SELECT count(*), count(DISTINCT account_id) FROM transactions"


def commands(section: str) -> list[str]:
    """The shell blocks of one section of the document, in order."""
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```bash\n(.*?)^```", body, re.MULTILINE | re.DOTALL)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """An environment of its own, which also sees what is installed here; `uv` and this project's commands are in it."""
    home = tmp_path / "env"
    venv.create(home, symlinks=True, with_pip=False)
    (packages,) = home.glob("lib/python*/site-packages")
    here = sysconfig.get_paths()["purelib"]
    (packages / "running.pth").write_text(f"import site; site.addsitedir({here!r})\n{ROOT}\n")
    for name, module in {"dashtam": "worker.cli", "celery": "celery"}.items():
        script = home / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {home}/bin/python -m {module} "$@"\n')
        script.chmod(0o755)
    (home / "bin" / "uv").symlink_to(Path(sys.executable).parent / "uv")
    return home


class Shell:
    """Runs blocks of the document one after the other; what one exports, the next one sees."""

    def __init__(self, home: Path, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._home = home
        self._kept = folder.parent / "exported"
        path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = environment | {"PATH": path, "VIRTUAL_ENV": str(home), "UV_OFFLINE": "1"}
        self._groups: list[int] = []

    def run(self, block: str) -> str:
        """Raises what the block wrote when one of its commands fails. What it leaves running goes on."""
        script = f"set -e\n{block}\nenv -0 > {self._kept}\n"
        log = self.folder.parent / "log"
        with log.open("w+b") as out:
            process = subprocess.Popen(
                [BASH, "-c", script],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            code = process.wait(timeout=300)
        said = log.read_text()
        assert code == 0, f"{block}\n{said}"
        pairs = (item.partition("=") for item in self._kept.read_text().split("\0") if item)
        self.environment = {name: value for name, _, value in pairs}
        return said

    def link(self) -> str:
        """`dashtam link`, whose address is opened as the user would."""
        with subprocess.Popen(
            [
                self._home / "bin" / "dashtam",
                "link",
                "toy",
                "--user",
                "ada@example.org",
                "--create-user",
                "--alias",
                "My toy",
            ],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("http"):
                    out, err = process.communicate(_consented(line.strip()) + "\n", timeout=120)
                    assert process.returncode == 0, err
                    return out
            raise AssertionError("no address was printed")

    def stop(self) -> None:
        """Ends what the blocks left running."""
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _consented(address: str) -> str:
    try:
        build_opener(_Stay).open(address, timeout=30)
    except OSError as answer:
        return str(answer.headers["location"])  # type: ignore[attr-defined]
    raise AssertionError("the consent page did not redirect")


@pytest.fixture
def shell(fresh: Path, tmp_path: Path, process_environment: dict[str, str]) -> Iterator[Shell]:
    folder = tmp_path / "empty"
    folder.mkdir()
    made = Shell(fresh, folder, os.environ | process_environment | {"DASHTAM_HOME": str(tmp_path / "home")})
    yield made
    made.stop()


def test_document_followed_to_the_letter_gives_an_integration_that_works(shell: Shell, engine: Engine) -> None:
    (begin,) = commands("Begin")
    sandbox, names, work = commands("See it at work")
    port = free_port()

    said = shell.run(begin)
    assert "passed" in said
    assert "missing" not in said

    shell.run(sandbox.replace(PORT_OF_THE_DOCS, str(port)))
    listed = shell.run(names.replace(PORT_OF_THE_DOCS, str(port)))
    assert re.search(r"^toy +closed", listed, re.MULTILINE), listed
    wait_for(lambda: not port_is_free(port), seconds=60)
    assert "linked My toy" in shell.link()
    assert "completed" in shell.run(work)

    with engine.connect() as connection:
        status, generation = connection.execute(text(PROVIDER)).one()
        rows, accounts = connection.execute(text(ROWS)).one()
    assert (status, accounts) == ("active", 3)
    assert generation == 2, "the token that linking gave was refreshed once"
    assert rows > 250
