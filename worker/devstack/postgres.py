"""A private Postgres: creates, starts and stops it without root rights. It listens only on 127.0.0.1."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

from worker.devstack import processes
from worker.devstack.account import Account, server_account, server_environment
from worker.devstack.binaries import PostgresBinaries, find_postgres
from worker.devstack.errors import DevstackError
from worker.devstack.server import READY_SECONDS, Server

ROOT = 0
ROLE = "dashtam"
DATABASE = "dashtam"
ORPHAN_SECONDS = 10.0  # backends soon notice that their server has ended
# Fast shutdown, then immediate shutdown, then kill.
STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
SHARED_TEMP = Path("/var/tmp")  # noqa: S108 - its content stays after a reboot, and every user can reach it

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path can have at most 107 bytes; the project's path may be longer
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Rows contain personal data, so neither statements nor failed rows may be logged.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
# Without fsync, commits are still written to the operating system at once (synchronous_commit stays on). So committed
# data is kept when the server is killed, as the fault tests expect; only a crash of the machine loses it.
DURABLE: dict[str, str] = {}
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


class PostgresServer(Server):
    """The private Postgres of one home.

    The application's role owns its database and may create others (tests do this), but it is not a superuser. The
    superuser has no password and cannot log in.

    The data is in the devstack's directory, or under /var/tmp if the user that must run Postgres cannot reach that
    directory (other users cannot enter root's home).
    """

    name = "Postgres"
    usual, durable, not_durable = SETTINGS, DURABLE, NOT_DURABLE
    stop_steps = STOP_STEPS

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the application's database, with the password."""
        return f"postgresql+psycopg://{ROLE}:{self._state.password}@127.0.0.1:{self._state.port}/{DATABASE}"

    def up(self) -> None:
        """Creates the data directory if there is none, and starts the server if it is down.

        Raises:
            DevstackError: there is no usable Postgres, or the data is of another version, or the server does not start.
        """
        if self._state.running:
            return
        account = server_account()
        data = self._find_data(account)
        major = (data / "PG_VERSION").read_text().strip() if data.exists() else None
        binaries = self._find_binaries(account, data, major)
        if major is None:
            self._create(binaries, account, data)
        else:
            self._clear_stale(data)
            if not self._state.password:
                self._renew_password(binaries, account, data)
        self._state.data, self._state.version = str(data), binaries.version
        self._start(binaries, account, data)

    def down(self) -> None:
        """Stops the server if it is running; the data is kept."""
        ended_by = self._stop()
        if ended_by is not None and ended_by is not signal.SIGINT:
            self._say(f"Postgres had to be ended by {ended_by.name}; it will recover at its next start")

    def _find_data(self, account: Account) -> Path:
        """The data directory; it may not exist yet."""
        known = Path(self._state.data)
        data = known if self._state.data and known.exists() else self._place(account) / "postgres"
        if data.exists():
            if not account.can_enter(data):
                raise DevstackError(
                    f"the Postgres data in {data} belongs to {_owner(data)} and {account.name} cannot use it. "
                    "Nothing was changed. Run as the user who made it, or set DASHTAM_HOME to another directory."
                )
            if not (data / "PG_VERSION").exists():
                raise DevstackError(f"{data} is no Postgres data directory. Nothing was changed; move it away.")
        return data

    def _place(self, account: Account) -> Path:
        if account.can_enter(self._home):
            return self._home
        return private_place(self._home, account)

    def _find_binaries(self, account: Account, data: Path, major: str | None) -> PostgresBinaries:
        try:
            return find_postgres(account, lambda: self._place(account), major)
        except DevstackError as error:
            if major is None:
                raise
            raise DevstackError(
                f"the data in {data} was made by Postgres {major}. It was kept as it is. Install Postgres {major}, or "
                f"move the directory away to start with an empty database.\n{error}"
            ) from error

    def _create(self, binaries: PostgresBinaries, account: Account, data: Path) -> None:
        partial = data.with_name("postgres.new")
        shutil.rmtree(partial, ignore_errors=True)  # left from an earlier attempt that was interrupted
        partial.mkdir(mode=0o700)
        account.give(partial)
        # The C locale sorts by code point on every system, so that the data never depends on the system's libraries.
        # `reject`: nobody may log in until our own pg_hba.conf is in place.
        done = account.run(
            [
                *(str(binaries.bin / "initdb"), "-D", str(partial), "-U", "postgres", "--encoding=UTF8", "--locale=C"),
                *("--auth=reject", "--no-sync", "--no-instructions"),
            ]
        )
        if done.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise DevstackError(f"Postgres could not make its data directory {data}:\n{_tail(done)}")
        self._state.password = self._state.password or secrets.token_urlsafe(24)
        self._run_sql(
            binaries,
            account,
            partial,
            f"CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE PASSWORD '{self._state.password}'",
            f"GRANT pg_monitor TO {ROLE}",
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
        )
        (partial / "pg_hba.conf").write_text(HBA)
        self._save()  # before the data is in place, so that no data exists without a saved password
        partial.rename(data)

    def _renew_password(self, binaries: PostgresBinaries, account: Account, data: Path) -> None:
        password = secrets.token_urlsafe(24)
        self._run_sql(binaries, account, data, f"ALTER ROLE {ROLE} PASSWORD '{password}'")
        self._state.password = password
        self._save()
        self._say(f"the password of the data in {data} was not on record; it has a new one")

    def _run_sql(self, binaries: PostgresBinaries, account: Account, data: Path, *statements: str) -> None:
        """Runs statements as superuser without a server, in Postgres' single-user mode, which reads standard input."""
        done = subprocess.run(
            [str(binaries.bin / "postgres"), "--single", "-D", str(data), "-c", "exit_on_error=true", "postgres"],
            input="".join(f"{statement};\n" for statement in statements),
            cwd="/",
            env=server_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            **account.popen_arguments(),
        )
        if done.returncode != 0:
            raise DevstackError(f"Postgres could not prepare the data in {data}:\n{self._without_password(done)}")

    def _without_password(self, done: subprocess.CompletedProcess[str]) -> str:
        return "\n".join(line for line in _tail(done).splitlines() if "PASSWORD" not in line)

    def _clear_stale(self, data: Path) -> None:
        """Handles a pid file left by a server that was killed, or by one that is not in our state file."""
        pid_file = data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        if self._stop_unrecorded(pid, data):
            return
        self._say("Postgres was not stopped properly last time; it recovers by itself")
        # Postgres treats any process with that pid as a server of this data: also another program that has the pid now,
        # and the killed server itself until its parent reaps it. So we remove the file. Without it, Postgres does not
        # check for backends that still run, so we check for them.
        if processes.exists(pid) and processes.wait_until(lambda: not processes.any_works_in(data), ORPHAN_SECONDS):
            pid_file.unlink()

    def _start(self, binaries: PostgresBinaries, account: Account, data: Path) -> None:
        before, port = self._state.port, self._port()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            failure = self._try_start(binaries, account, data, port, deadline)
            if failure is None:
                break
            if "could not bind" in failure:  # another program took the port between our check and the start
                port = processes.free_port()
            elif "is still in use" not in failure or time.monotonic() > deadline:
                raise self._ended_at_start(data)
            time.sleep(0.05)  # backends of a killed server are still ending
        self._say_port(before)

    def _try_start(
        self, binaries: PostgresBinaries, account: Account, data: Path, port: int, deadline: float
    ) -> str | None:
        settings = self._settings | {"port": str(port)}
        argv = [str(binaries.bin / "postgres"), "-D", str(data)]
        argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._run(argv, account, port, deadline, lambda pid, _: _is_ready(data, pid))


def private_place(home: Path, account: Account) -> Path:
    """A directory for the data of a home that `account` cannot reach. Root owns it; the account's group may enter it.

    Raises:
        DevstackError: another user has made a directory with that name.
    """
    place = SHARED_TEMP / f"dashtam-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != ROOT:
        raise DevstackError(f"{place} was made by {_owner(place)}, so it is not used. Remove it, or set DASHTAM_HOME.")
    shutil.chown(place, group=account.gid)
    place.chmod(0o710)
    return place


def _is_ready(data: Path, pid: int) -> bool:
    """Whether the server's pid file (line 1: pid, line 8: state) says that the server accepts connections."""
    try:
        lines = (data / "postmaster.pid").read_text().split("\n")
    except OSError:
        return False
    return len(lines) > 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _owner(path: Path) -> str:
    try:
        return f"user {path.owner()}"
    except KeyError:
        return f"uid {path.stat().st_uid}"


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
    return "\n".join(f"    {line}" for line in lines)
