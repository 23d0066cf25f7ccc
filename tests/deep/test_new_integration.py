"""An integration that nobody here knows of: a package of somebody else's, in a fresh environment.

The environment has the worker as it is published, as a wheel. There docs/adding-an-integration.md is followed to the
letter, and a wheel that is no relative of the template (`tests/plug_in`) is installed. Each is listed, linked,
refreshed and synced against its own stand-in, with not one line of this project changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import HTTPRedirectHandler, build_opener
from zipfile import ZipFile

import pytest
from sqlalchemy import Engine, text

from tests.support.environment import ROOT
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.devstack.processes import free_port, port_is_free

# One environment serves all tests of this file.
pytestmark = [pytest.mark.deep, pytest.mark.long, pytest.mark.xdist_group("fresh environment")]

TEXT = (ROOT / "docs" / "adding-an-integration.md").read_text()
PLUG_IN = ROOT / "tests" / "plug_in"
PORT_OF_THE_DOCS = "8765"
UV = Path(sys.executable).parent / "uv"
BASH = shutil.which("bash") or "/bin/bash"
PROVIDER = "SELECT status, generation FROM providers JOIN provider_tokens ON provider_id = id"
ROWS = "SELECT count(*), count(DISTINCT account_id) FROM transactions"


def commands(section: str) -> list[str]:
    """The shell blocks of one section of the document, in order."""
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```bash\n(.*?)^```", body, re.MULTILINE | re.DOTALL)


def wheel(source: Path, *names: str, into: Path) -> Path:
    """Builds a wheel of what git has in `source` (of `names`, if there are any), somewhere else."""
    copy = into / f"source of {source.name}"
    copy.mkdir()
    archive = subprocess.run(
        ["git", "ls-files", "-z", *names],  # noqa: S607
        cwd=source,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, archive.stdout.split("\0")):
        if (source / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, copy / name)
    uv(into, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", copy / "dist", copy)
    (made,) = (copy / "dist").glob("*.whl")
    return made


def uv(home: Path, *arguments: str | Path) -> None:
    """Without a network."""
    environment = os.environ | {"VIRTUAL_ENV": str(home), "UV_OFFLINE": "1"}
    done = subprocess.run([UV, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's wheel."""
    return wheel(ROOT, "worker", "schedules", "pyproject.toml", "README.md", into=tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def fresh(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the worker's wheel; for all else it sees what is installed here. `uv` is in it, too."""
    home = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(home, symlinks=True, with_pip=False)
    (packages,) = home.glob("lib/python*/site-packages")
    here = sysconfig.get_paths()["purelib"]
    (packages / "running.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    uv(home, "pip", "install", "--no-deps", published)
    celery = home / "bin" / "celery"
    celery.write_text(f'#!/bin/sh\nexec {home}/bin/python -m celery "$@"\n')
    celery.chmod(0o755)
    (home / "bin" / "uv").symlink_to(UV)
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

    def link(self, integration: str, alias: str, given: Callable[[str], str]) -> str:
        """`dashtam link`. What it prints for the user to read is answered with `given`, line by line until that says
        something."""
        with subprocess.Popen(
            [
                self._home / "bin" / "dashtam",
                *("link", integration, "--user", "ada@example.org", "--create-user", "--alias", alias),
            ],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            answer = given("")
            while not answer and (line := process.stderr.readline()):
                answer = given(line.strip())
            out, err = process.communicate(f"{answer}\n", timeout=120)
            assert process.returncode == 0, err
            return out

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
    """What the user of an address brings back; nothing for a line that is none."""
    if not address.startswith("http"):
        return ""
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
    sandbox, names, work = commands("Run it")
    port = free_port()

    said = shell.run(begin)
    assert "passed" in said
    assert "missing" not in said

    shell.run(sandbox.replace(PORT_OF_THE_DOCS, str(port)))
    listed = shell.run(names.replace(PORT_OF_THE_DOCS, str(port)))
    assert re.search(r"^toy +closed", listed, re.MULTILINE), listed
    wait_for(lambda: not port_is_free(port), seconds=60)
    assert "linked My toy" in shell.link("toy", "My toy", _consented)
    assert "completed" in shell.run(work)

    assert synced(engine) == ("active", 2, 3), "status; the token that linking gave was refreshed once; accounts"


def test_wheel_has_every_file_of_the_package(published: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "worker", "schedules"],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    missing = set(tracked.stdout.split()) - set(ZipFile(published).namelist())

    assert sorted(missing) == []


def test_wheel_of_somebody_else_s_works_once_it_is_installed(
    shell: Shell, fresh: Path, tmp_path: Path, engine: Engine
) -> None:
    uv(fresh, "pip", "install", "--no-deps", wheel(PLUG_IN, into=tmp_path))
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    shell.run(f"python -m worker.sandbox --port {port} --admin-token sandbox --logins harbour=1 >/dev/null &")
    listed = shell.run(
        f"export INTEGRATIONS=harbour HARBOUR_BASE_URL={address}/harbour\n"
        "export HARBOUR_CLIENT_ID=sandbox-app HARBOUR_CLIENT_SECRET=sandbox-secret\n"
        "dashtam integrations list --json\n"
        "celery -A worker.app worker --queues refresh,sync,upkeep --concurrency 1 --loglevel ERROR &"
    )
    (row,) = (row for row in json.loads(listed) if row["provider_key"] == "harbour")
    assert (row["package"], row["enabled"], row["link_kind"]) == ("dashtam-harbour", True, "key_file")
    wait_for(lambda: not port_is_free(port), seconds=60)
    with SandboxAdmin(address, "sandbox") as sandbox:
        key = sandbox.link("harbour-1")
    assert "linked My berth" in shell.link("harbour", "My berth", lambda _: f"{key['key_id']}\n{key['key_file']}")
    assert "completed" in shell.run('dashtam refresh "My berth" --wait\ndashtam sync "My berth" --wait')

    assert synced(engine) == ("active", 2, 3)


def synced(engine: Engine) -> tuple[str, int, int]:
    """Status, generation and accounts of the one provider, whose transactions were read."""
    with engine.connect() as connection:
        status, generation = connection.execute(text(PROVIDER)).one()
        rows, accounts = connection.execute(text(ROWS)).one()
    assert rows > 250
    return status, generation, accounts
