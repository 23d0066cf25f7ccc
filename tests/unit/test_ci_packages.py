"""`.ci/packages`: root installs what is missing; who cannot is told what to install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.environment import ROOT

pytestmark = pytest.mark.deep  # each starts a shell


class Machine:
    """A folder as the only PATH: commands that write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        bash = shutil.which("bash")
        assert bash is not None
        (folder / "bash").symlink_to(bash)
        for name in ("python3", "pgbouncer"):
            self.has(name)

    def has(self, name: str, does: str = "") -> None:
        """Puts a command there.

        Args:
            does: what it does besides, in the language of the shell.
        """
        path = self.folder / name
        path.write_text(f'#!{self.folder}/bash\necho "{name} $*" >> {self.calls}\n{does}\n')
        path.chmod(0o755)

    def is_run_by(self, user: int) -> None:
        self.has("id", f"echo {user}")

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bash", ROOT / ".ci/packages"],
            env={"PATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def installed(self) -> list[str]:
        """The packages that apt-get was asked for."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line.split()[-1] for line in lines if line.startswith("apt-get install")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("browser", ["chromium", "chromium-browser", "google-chrome"])
def test_what_is_there_is_not_installed(machine: Machine, browser: str) -> None:
    machine.is_run_by(0)
    machine.has("apt-get")
    machine.has(browser)

    done = machine.run()

    assert (done.returncode, done.stderr, machine.installed) == (0, "", [])


def test_root_installs_what_is_missing(machine: Machine) -> None:
    machine.is_run_by(0)
    machine.has("python3", f"[ -e {machine.folder}/python3-venv ]")
    machine.has("apt-get", f'[ "$1" = update ] || printf "" > {machine.folder}/python3-venv')
    machine.has("chromium")

    done = machine.run()

    assert done.returncode == 0, done.stderr
    assert machine.installed == ["python3-venv"]


def test_somebody_else_is_told_what_to_install(machine: Machine) -> None:
    machine.is_run_by(1000)
    machine.has("apt-get")

    done = machine.run()

    assert done.returncode == 1
    assert "the package chromium is missing, and only root can install it. Nothing was checked." in done.stderr
    assert "sudo apt-get install chromium" in done.stderr
    assert machine.installed == []


@pytest.mark.parametrize(
    "apt_get",
    ['[ "$1" = update ] || { echo "E: no such package" >&2; exit 100; }', 'echo "E: no network" >&2; exit 100', ""],
    ids=["not in the index", "no network", "installed without the command"],
)
def test_package_that_cannot_be_installed_fails_the_checks(machine: Machine, apt_get: str) -> None:
    machine.is_run_by(0)
    machine.has("apt-get", apt_get)

    done = machine.run()

    assert done.returncode == 1
    assert "the package chromium could not be installed; why is said above. Nothing was checked." in done.stderr
    assert done.stderr.endswith("then try again: .ci/run\n")


def test_checks_begin_with_the_packages() -> None:
    steps = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("step ")]

    assert steps[0].endswith(" .ci/packages")
