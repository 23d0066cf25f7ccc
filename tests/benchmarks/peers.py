"""The peers' side of `bench_sync`: dlt (merge) and Singer's target-postgres, fed the same rows.

Each has an environment of its own under `.dashtam/peers`, made by `bench_peers`; one that is missing is left out of
the answer. They are spared the fetching and get flat rows, mapped beforehand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import create_engine, make_url, text

from tests.benchmarks.sync_apply import Fetched
from tests.benchmarks.sync_setup import Bench
from tests.support.environment import ROOT

HOME = ROOT / ".dashtam" / "peers"
REQUIREMENTS = {"dlt": "dlt[postgres]==1.31.0", "singer": "meltanolabs-target-postgres==0.8.1"}

_FIELDS = ("account_key", "transaction_key", "type", "subtype", "status", "amount", "currency", "posted_date")
_MORE_FIELDS = ("occurred_at", "description", "counterparty", "category", "pending_key", "provider_type")

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


def measure(bench: Bench, fetched: Fetched) -> dict[str, Rates]:
    """Rows per second of each peer whose environment exists."""
    rows = [_flat(record) for record in fetched.records.values()]
    changed = [row | {"description": "CHANGED"} if place % 100 == 0 else row for place, row in enumerate(rows)]
    with create_engine(bench.database_url).begin() as connection:
        connection.execute(text("TRUNCATE transactions"))
    found: dict[str, Rates] = {}
    if _exists("dlt"):
        found["dlt"] = _dlt(bench, rows, changed)
    if _exists("singer"):
        found["singer"] = _singer(bench, rows, changed)
    return found


def _exists(name: str) -> bool:
    return any((HOME / name / "bin").glob("python"))


def _flat(record: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.to_builtins(record)
    flat = {name: fields[name] for name in (*_FIELDS, *_MORE_FIELDS)}
    return flat | {"amount": float(flat["amount"])}


def _dlt(bench: Bench, *passes: Sequence[dict[str, Any]]) -> Rates:
    files = []
    for number, rows in enumerate(passes):
        path = bench.home / f"rows-{number}.jsonl"
        path.write_bytes(msgspec.json.Encoder().encode_lines(rows))
        files.append(str(path))
    url = make_url(bench.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [str(HOME / "dlt/bin/python"), str(Path(__file__).with_name("peer_dlt.py")), url, str(bench.home), *files],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=bench.home,
    )
    rates: Rates = json.loads(done.stdout.splitlines()[-1])
    return rates


def _singer(bench: Bench, *passes: Sequence[dict[str, Any]]) -> Rates:
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
    idle = _target(bench, config, [])  # what starting it costs is not held against it
    rates = [len(rows) / (_target(bench, config, rows) - idle) for rows in passes]
    return dict(zip(("load_rows_per_s", "resync_rows_per_s"), rates, strict=True))


def _target(bench: Bench, config: Path, rows: Sequence[dict[str, Any]]) -> float:
    """Seconds that target-postgres takes for these rows."""
    text_or_null = {"type": ["string", "null"]}
    properties: dict[str, Any] = dict.fromkeys((*_FIELDS, *_MORE_FIELDS), text_or_null)
    properties |= {"amount": {"type": ["number", "null"]}, "posted_date": {"type": "string", "format": "date"}}
    messages: list[dict[str, Any]] = [
        {
            "type": "SCHEMA",
            "stream": "transactions",
            "schema": {"type": "object", "properties": properties},
            "key_properties": ["account_key", "transaction_key"],
        }
    ]
    messages += [{"type": "RECORD", "stream": "transactions", "record": row} for row in rows]
    path = bench.home / "messages.jsonl"
    path.write_bytes(msgspec.json.Encoder().encode_lines(messages))
    with path.open("rb") as given:
        started = time.perf_counter()
        subprocess.run(
            [str(HOME / "singer/bin/target-postgres"), "--config", str(config)],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            cwd=bench.home,
        )
        return time.perf_counter() - started
