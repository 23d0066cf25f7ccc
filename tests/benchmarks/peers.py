"""The peers' side of `bench_sync`: dlt (merge) and Singer's target-postgres, fed the same rows by the same server.

Each has an environment of its own under `.dashtam/peers`, made by `bench_peers`; one that is missing is left out of
the answer. As with us, a pass is from the first request to the last commit; starting up is not held against anyone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from tests.benchmarks import peer_feed, replay
from tests.benchmarks.sync_setup import Bench
from tests.support.environment import ROOT

HOME = ROOT / ".dashtam" / "peers"
REQUIREMENTS = {"dlt": "dlt[postgres]==1.31.0", "singer": "meltanolabs-target-postgres==0.8.1"}

Rates = dict[str, float]


def make(name: str) -> Path:
    """Makes the environment of a peer, if there is none; returns its directory."""
    home = HOME / name
    stamp = home / REQUIREMENTS[name].replace("/", "_")
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", REQUIREMENTS[name]], check=True)
        stamp.touch()
    return home


def measure(bench: Bench, rows: int) -> dict[str, Rates]:
    """Rows per second of each peer whose environment exists: a first load, and again with every hundredth changed.

    Their tables are made anew.
    """
    present = {name: _PASSES[name] for name in REQUIREMENTS if any((HOME / name / "bin").glob("python"))}
    if not present:
        return {}
    with create_engine(bench.database_url).begin() as connection:
        connection.execute(text("TRUNCATE transactions, transaction_keys"))
        for name in present:
            for schema in (f"peer_{name}", f"peer_{name}_staging"):
                connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
    shutil.rmtree(bench.home / "dlt", ignore_errors=True)
    (login,) = bench.admin.create_logins("plaid", accounts=2, transactions=rows, warm=True)
    access_token = bench.admin.mint(login)[0].access_token
    found: dict[str, Rates] = {name: {} for name in present}
    for measured in ("load_rows_per_s", "resync_rows_per_s"):
        replay.forget(bench.feed_url)
        count = sum(len(page) for page in peer_feed.pages(f"{bench.feed_url}/plaid", access_token))
        for name, seconds in present.items():
            found[name][measured] = count / seconds(bench, access_token)
        for row in bench.admin.books(login)["transactions"][::100]:
            bench.admin.modify_transaction(login, row["id"], description="CHANGED")
    return found


def _dlt(bench: Bench, access_token: str) -> float:
    url = make_url(bench.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    script = str(Path(__file__).with_name("peer_dlt.py"))
    done = subprocess.run(
        [str(HOME / "dlt/bin/python"), script, url, str(bench.home / "dlt"), f"{bench.feed_url}/plaid", access_token],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=bench.home,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _singer(bench: Bench, access_token: str) -> float:
    url = make_url(bench.database_url)
    config = bench.home / "target.json"
    config.write_text(
        json.dumps(
            {
                "host": url.host,
                "port": url.port,
                "user": url.username,
                "password": url.password,
                "database": url.database,
                "default_target_schema": "peer_singer",
                "add_record_metadata": False,
                "activate_version": False,
            }
        )
    )
    starting = _tap_into_target(bench, config)
    return _tap_into_target(bench, config, f"{bench.feed_url}/plaid", access_token) - starting


def _tap_into_target(bench: Bench, config: Path, *source: str) -> float:
    """Seconds of both together; without a source, of starting them."""
    tap = [str(HOME / "singer/bin/python"), str(Path(__file__).with_name("peer_tap.py")), *source]
    target = [str(HOME / "singer/bin/target-postgres"), "--config", str(config)]
    started = time.perf_counter()
    with subprocess.Popen(tap, stdout=subprocess.PIPE) as given:
        subprocess.run(
            target,
            stdin=given.stdout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            cwd=bench.home,
        )
    if given.returncode:
        raise SystemExit("the tap failed")
    return time.perf_counter() - started


_PASSES = {"dlt": _dlt, "singer": _singer}
