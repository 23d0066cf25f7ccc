"""`make setup` installs exactly what the lock lists, whatever newer releases an index offers by now."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
INSTALLERS = ("uv", "pip")
# Packages of the lock of which a made-up index has a newer release; pip, which is slow, installs only these.
SOME = ("celery", "coverage", "kombu", "psycopg", "pydantic", "pytest", "pytest-cov", "redis", "sqlalchemy", "uvicorn")
VERSIONS = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def wheel(directory: Path, name: str, version: str, requires: Iterable[str] = ()) -> str:
    """Makes a wheel with one module and returns the lock's entry for it."""
    directory.mkdir(exist_ok=True)
    path, info = directory / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    extras = "".join(f"Provides-Extra: {extra}\n" for extra in ("toml", "redis", "binary", "pool"))
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extras}{needs}"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of wheels, which installers look through beside their index, or alone where a test allows no other."""
    return tmp_path / "index"


@pytest.fixture
def lock(tmp_path: Path, index: Path) -> Path:
    """A lock of two packages; the index has a newer release of both, and the one asks for an extra of the other."""
    entries = wheel(index, "covered", "1.0"), wheel(index, "plugin", "1.0", ["covered[toml]>=1"])
    wheel(index, "covered", "99.0")
    wheel(index, "plugin", "99.0")
    path = tmp_path / "made-up.lock"
    path.write_text("".join(entries))
    return path


def environment(index: Path, **more: str) -> dict[str, str]:
    """A shell's environment in which the folder is one more index and the tests' own uv is on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PIP_FIND_LINKS": str(index), "UV_FIND_LINKS": str(index), "PATH": path, **more}


def run(*command: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has pip and nothing else; to make one takes seconds, to copy it takes a fraction of one."""
    home = tmp_path_factory.mktemp("with-pip") / "env"
    venv.create(home, symlinks=True, with_pip=True)
    return home


def clone(directory: Path) -> Path:
    """The files that `make setup` reads, in another directory."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "README.md", "LICENSE", "ops", "schedules"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, directory / name)
    (directory / "worker").mkdir()
    (directory / "worker/__init__.py").touch()
    return directory


def listed(lock: str) -> dict[str, str]:
    """The version of each package that a lock lists for this Python, without pip and setuptools."""
    lines = re.findall(r"^([a-z0-9].*?)(?: \\)?$", lock, re.MULTILINE)
    wanted = [line for line in map(Requirement, lines) if line.marker is None or line.marker.evaluate()]
    return {line.name: str(line.specifier).removeprefix("==") for line in wanted if line.name != "setuptools"}


def make(home: Path, lock: Path, *options: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    alone = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    return run(sys.executable, ROOT / "ops/environment.py", home, "--lock", lock, *options, env={**env, **alone})


def installed(home: Path) -> dict[str, str]:
    """The version of each package of an environment, without pip and setuptools, which venv brings."""
    found: dict[str, str] = json.loads(subprocess.check_output([home / "bin/python", "-I", "-c", VERSIONS], text=True))
    names = {canonicalize_name(name): version for name, version in found.items()}
    return {name: version for name, version in names.items() if name not in ("pip", "setuptools")}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_make_setup_installs_exactly_the_lock_years_later(installer: str, tmp_path: Path, index: Path) -> None:
    for name in SOME:
        wheel(index, name, "99.0")
    (tmp_path / "clone").mkdir()
    project = clone(tmp_path / "clone")
    lock = project / "requirements.lock"
    if installer == "pip":
        part = run(sys.executable, ROOT / "ops/lock_part.py", lock, "--only", "setuptools", *SOME, env=dict(os.environ))
        lock.write_text(part.stdout)

    done = run("make", "-C", project, "setup", f"INSTALLER={installer}", env=environment(index))

    assert done.returncode == 0, done.stderr
    assert installed(project / ".venv") == {**listed(lock.read_text()), "dashtam-worker": "0.2.0"}
    assert not run("make", "-C", project, "setup", env=environment(index)).stderr


@pytest.mark.parametrize("installer", INSTALLERS)
def test_newer_releases_of_the_index_change_nothing(
    installer: str, tmp_path: Path, with_pip: Path, index: Path, lock: Path
) -> None:
    shutil.copytree(with_pip, tmp_path / "env", symlinks=True)

    done = make(tmp_path / "env", lock, "--installer", installer, env=environment(index))

    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "env") == {"covered": "1.0", "plugin": "1.0"}


def test_pip_installs_it_where_no_uv_can_be_had(tmp_path: Path, index: Path, lock: Path) -> None:
    only_python = tmp_path / "bin"
    only_python.mkdir()

    done = make(tmp_path / "env", lock, env=environment(index, PATH=str(only_python)))

    assert done.returncode == 0, done.stderr
    assert "with pip" in done.stderr
    assert installed(tmp_path / "env") == {"covered": "1.0", "plugin": "1.0"}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_wheel_whose_hash_is_not_the_lock_s_is_refused(
    installer: str, tmp_path: Path, with_pip: Path, index: Path, lock: Path
) -> None:
    shutil.copytree(with_pip, tmp_path / "env", symlinks=True)
    wheel(index, "covered", "1.0", ["swapped"])

    done = make(tmp_path / "env", lock, "--installer", installer, env=environment(index))

    assert done.returncode == 1
    assert "hash" in done.stderr.lower()
    assert f"ops/environment.py {tmp_path / 'env'}" in done.stderr.splitlines()[-1]
    assert installed(tmp_path / "env").keys() <= {"plugin"}
    assert not (tmp_path / "env/.complete").exists()


def test_half_finished_environment_is_made_anew(tmp_path: Path, index: Path, lock: Path) -> None:
    home = tmp_path / "env"
    make(home, lock, env=environment(index))
    (module,) = home.glob("lib/python3*/site-packages/covered/__init__.py")
    module.unlink()
    (home / ".complete").unlink()
    (home / ".unfinished").touch()

    done = make(home, lock, env=environment(index))

    assert done.returncode == 0, done.stderr
    assert module.exists()


def test_environment_without_a_python_that_runs_is_made_anew(tmp_path: Path, index: Path, lock: Path) -> None:
    home = tmp_path / "env"
    (home / "bin").mkdir(parents=True)
    (home / "bin/python").symlink_to(tmp_path / "removed-python")

    done = make(home, lock, env=environment(index))

    assert done.returncode == 0, done.stderr
    assert installed(home) == {"covered": "1.0", "plugin": "1.0"}


def test_changed_lock_changes_the_environment_and_keeps_what_somebody_added(
    tmp_path: Path, index: Path, lock: Path
) -> None:
    home, env = tmp_path / "env", environment(index)
    make(home, lock, env=env)
    wheel(index, "own", "1.0")
    run("uv", "pip", "install", "--python", home / "bin/python", "own", env=env)
    lock.write_text(wheel(index, "covered", "2.0") + wheel(index, "plugin", "1.0", ["covered[toml]>=1"]))

    done = make(home, lock, env=env)

    assert done.returncode == 0, done.stderr
    assert installed(home) == {"covered": "2.0", "plugin": "1.0", "own": "1.0"}
