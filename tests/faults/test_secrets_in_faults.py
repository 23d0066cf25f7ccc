"""While everything goes wrong, no token is written anywhere in plain text, and every rotation leaves its audit row."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.support.faults_world import World
from tests.support.waiting import wait_for

# As the sandbox makes them: access tokens, refresh tokens, Plaid's.
TOKEN = re.compile(r"I0\.[\w-]{40,}|[\w-]{50,}=*@|access-sandbox-[\w-]{20,}")


def everything_in_postgres(world: World) -> str:
    tables = [row[0] for row in world.query("SELECT relname FROM pg_stat_user_tables")]
    return "\n".join(str(tuple(row)) for name in tables for row in world.query(f'SELECT t::text FROM "{name}" t'))  # noqa: S608


def everything_in_redis(world: World) -> str:
    redis = world.servers.redis
    values = []
    for key in redis.scan_iter(count=1000):
        match redis.type(key):
            case "string":
                values.append(redis.get(key))
            case "list":
                values += redis.lrange(key, 0, -1)
            case "hash":
                values += redis.hvals(key)
    return "\n".join(map(str, values))


def arguments_of_all_processes() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text(errors="replace"))
        except OSError:  # it has ended
            continue
    return "\n".join(found)


def test_no_token_is_written_anywhere_while_postgres_and_redis_fail(world: World) -> None:
    minted = world.sandbox.mint(world.refreshed[1])[0]  # what a token looks like; this login is linked anew below
    assert TOKEN.fullmatch(minted.access_token)
    assert TOKEN.fullmatch(minted.refresh_token or "")
    world.sandbox.revoke(world.refreshed[1])
    places: list[str] = []
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        with world.servers.postgres_down():
            barrier.release()
            wait_for(lambda: world.servers.redis.hlen("dashtam:journal"), what="the answer in the journal")
            places.append(everything_in_redis(world))
    world.settle(lost=(world.refreshed[1],))
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        with world.servers.postgres_down(), world.servers.redis_down():
            barrier.release()
            spooled = wait_for(world.spooled, what="the answer on the disk")
            places += [path.read_text() for path in spooled]
    world.settle(lost=(world.refreshed[1],))
    status = world.start_process([sys.executable, "-m", "worker.cli", "status"])
    status.wait()

    places += [everything_in_postgres(world), everything_in_redis(world), arguments_of_all_processes()]
    places += [path.read_text(errors="replace") for path in world.log_files()]
    assert [found for place in places for found in TOKEN.findall(place)] == []
    world.assert_nothing_was_lost(lost=(world.refreshed[1],))
