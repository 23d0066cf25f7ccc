"""Makes a Python environment that has exactly what a lock lists.

    environment.py .venv --project                    all of requirements.lock, and this project, editable
    environment.py .audit --lock ops/audit.lock       all of another lock
    environment.py .uv --only uv                      these packages of the lock alone

Nothing is resolved: each package is taken at the version that the lock says, whatever newer releases an index offers,
and its hash is compared. uv does it in seconds: one that is on PATH, else the one that the lock lists. Where no uv can
be had, pip does the same. `--installer` allows one of them alone.

It runs before anything is installed, so it imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lock_part

ROOT = Path(__file__).resolve().parent.parent
# As the lock says. Sources are built with the lock's own build tools, never with newer ones that an index offers.
EXACTLY = ("--no-deps", "--require-hashes", "--no-build-isolation")
BUILD_TOOLS = {"setuptools"}
# Pip writes several lines for a package; so many packages make one line here.
PIP_SAYS_EVERY = 20

Says = Callable[[Iterable[str]], Iterator[str]]


class InstallError(Exception):
    """An installer ended with an error; its last lines are the message."""


def make(home: Path, lock: str, *, project: bool, allowed: set[str]) -> None:
    """Makes the environment, or brings it up to the lock. One whose making was interrupted is made anew.

    Args:
        home: Where it belongs, such as `.venv`.
        lock: The text of the lock, or of a part of it.
        project: Whether this project is installed too, editable.
        allowed: `uv`, `pip` or both.

    Raises:
        InstallError: No allowed installer could install the lock.
    """
    python, complete, unfinished = home / "bin" / "python", home / ".complete", home / ".unfinished"
    content = lock + ((ROOT / "pyproject.toml").read_text() if project else "")
    digest = hashlib.sha256(content.encode()).hexdigest()
    with _alone(home.absolute().parent):
        if complete.exists() and complete.read_text() == digest:
            complete.touch()
            return
        if unfinished.exists() or not _works(python, "-c", ""):
            shutil.rmtree(home, ignore_errors=True)
        complete.unlink(missing_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        if not python.exists():
            _say(f"Making {home} ...")
            venv.create(home, symlinks=True)
        _install(python, lock, project=project, allowed=allowed)
        complete.write_text(digest)
        unfinished.unlink()


def _install(python: Path, lock: str, *, project: bool, allowed: set[str]) -> None:
    """Tries uv, then pip. Both compare the hashes, so pip after uv is no weaker."""
    errors = []
    for name, command, says in (("uv", _uv, _uv_says), ("pip", _pip, _pip_says)):
        if name not in allowed:
            continue
        try:
            installer = command(python, lock)
            _say(f"Installing what the lock lists with {name} ...")
            _run_with_file([*installer, *EXACTLY, "--requirement"], _named(lock, BUILD_TOOLS), _nothing)
            _run_with_file([*installer, *EXACTLY, "--requirement"], lock, says)
            if project:
                _run([*installer, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], _nothing)
        except InstallError as error:
            _say(f"Not with {name}: {str(error).splitlines()[-1]}")
            errors.append(f"{name}: {error}")
        else:
            return
    raise InstallError("\n".join(errors))


def _uv(python: Path, lock: str) -> list[str]:
    """The command of a uv that runs: one on PATH, else the lock's own, installed into the environment."""
    found = shutil.which("uv")
    if found is None or not _works(Path(found), "--version"):
        listed = _named(lock, {"uv"})
        if not listed.strip():
            raise InstallError("there is none on PATH, and this lock does not list it")
        _say("Fetching uv ...")
        _run_with_file([*_pip(python, lock), *EXACTLY, "--requirement"], listed, _nothing)
        found = str(python.parent / "uv")
    return [found, "pip", "install", "--python", str(python)]


def _pip(python: Path, _: str) -> list[str]:
    """The command of the environment's own pip, of the pip of the Python that runs this, or of one that it now gets.

    The last takes seconds.
    """
    if _works(python, "-c", "import pip"):
        pip = [str(python), "-m", "pip"]
    elif _works(Path(sys.executable), "-m", "pip", "--python", str(python), "--version"):
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
    else:
        _run([str(python), "-m", "ensurepip", "--default-pip"], _nothing)
        pip = [str(python), "-m", "pip"]
    # To compile takes half of pip's time. uv does not do it either; Python does when it first reads a module.
    return [*pip, "install", "--disable-pip-version-check", "--no-compile"]


def _nothing(lines: Iterable[str]) -> Iterator[str]:
    """No line, but all are read: they are the message of an error."""
    return (line for line in lines if False)


def _uv_says(lines: Iterable[str]) -> Iterator[str]:
    """All that uv says but its closing list of every package."""
    return (line for line in lines if not line.startswith((" + ", " - ", " ~ ")))


def _pip_says(lines: Iterable[str]) -> Iterator[str]:
    """A line for every so many packages."""
    collected = 0
    for line in lines:
        collected += line.startswith("Collecting ")
        if line.startswith("Collecting ") and collected % PIP_SAYS_EVERY == 0:
            yield f"{collected} packages are fetched"
        elif line.startswith("Installing collected"):
            yield "unpacking them"


def _named(lock: str, names: set[str]) -> str:
    """The lock's entries of those of these packages that it lists; may be empty."""
    return lock_part.only(lock, names & {lock_part.name(block) for block in lock_part.blocks(lock)})


def _run_with_file(command: list[str], text: str, says: Says) -> None:
    """Runs a command that ends with the name of a file with this text; does nothing where the text is blank."""
    if not text.strip():
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        _run([*command, file.name], says)


def _run(command: list[str], says: Says) -> None:
    tail: deque[str] = deque(maxlen=20)

    def lines(output: Iterable[str]) -> Iterator[str]:
        for line in output:
            tail.append(line.rstrip())
            yield line.rstrip()

    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as running:
        for line in says(lines(running.stdout or ())):
            _say(f"  {line}")
    if running.returncode:
        raise InstallError("\n".join(tail) or f"ended with {running.returncode}")


def _works(program: Path, *arguments: str) -> bool:
    try:
        return not subprocess.run([program, *arguments], capture_output=True, check=False).returncode
    except OSError:
        return False


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Holds a lock on the directory, so that two commands at once do not make the same environment."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another command is making an environment here; this one goes on when it has ended ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> int:
    """Makes what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description="Makes a Python environment that has exactly what a lock lists.")
    parser.add_argument("home", type=Path)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these packages of the lock alone")
    parser.add_argument("--project", action="store_true", help="install this project too, editable")
    parser.add_argument("--installer", choices=["uv", "pip"], help="this one alone; default: uv, or pip without one")
    args = parser.parse_args()
    lock, again = args.lock.read_text(), shlex.join([sys.executable, *sys.argv])
    allowed = {args.installer} if args.installer else {"uv", "pip"}
    try:
        make(
            args.home,
            lock_part.only(lock, set(args.only)) if args.only else lock,
            project=args.project,
            allowed=allowed,
        )
    except InstallError as error:
        _say(f"error: {args.lock.name} could not be installed into {args.home}.\n{error}")
        _say(f"What was fetched is kept in the installer's cache. This tries again: {again}")
        return 1
    except KeyboardInterrupt:
        _say(f"Stopped; {args.home} is not complete. This makes it anew: {again}")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
