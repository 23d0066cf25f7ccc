"""Rows per second and peak memory of `dashtam export`, in each format.

`python -m tests.benchmarks.bench_export [--rows 1000000]`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text

from tests.support.databases import migrate
from worker.devstack import Devstack
from worker.services.export import Format

_USER = "many@example.org"
_SEED = """
WITH one_user AS (INSERT INTO users (id, email) VALUES (gen_random_uuid(), :user) RETURNING id),
login AS (
    INSERT INTO providers (id, user_id, provider_key, alias, status)
    SELECT gen_random_uuid(), id, 'bench', 'Bench', 'active' FROM one_user RETURNING id
), account AS (
    INSERT INTO accounts (id, provider_id, provider_account_id, name, type, subtype, status, currency, content_hash)
    SELECT gen_random_uuid(), id, 'account', 'Checking', 'depository', 'checking', 'active', 'USD', '' FROM login
    RETURNING id
)
INSERT INTO transactions (id, account_id, provider_transaction_id, status, type, amount, currency, posted_date,
    description, counterparty, category, content_hash)
SELECT gen_random_uuid(), account.id, 'tx-' || i, 'posted', 'payment', -(i % 9000) / 100.0, 'USD',
    DATE '2020-01-01' + (i % 2000), 'CORNER GROCERY ' || i, 'Corner Grocery', 'FOOD_AND_DRINK', ''
FROM account CROSS JOIN generate_series(1, :rows) AS i
"""
_EXPORT = """
import pathlib, re
from worker.cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    found: dict[str, object] = {"rows": rows}
    with tempfile.TemporaryDirectory(prefix="dashtam-export-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o755)  # Postgres runs as another user when root runs this
        with Devstack(Path(home) / "stack", durable=False, environ={}).session(erase=True) as urls:
            migrate(urls.database_url)
            with create_engine(urls.database_url).begin() as connection:
                connection.execute(text(_SEED), {"rows": rows, "user": _USER})
            environment = os.environ | {
                "DATABASE_URL": urls.database_url,
                "REDIS_URL": urls.redis_url,
                "ENCRYPTION_KEYS": f"bench:{Fernet.generate_key().decode()}",
            }
            for format_ in Format:
                output = str(Path(home) / f"out.{format_}")
                options = ["--user", _USER, "--format", format_.value, "--output", output]
                began = time.perf_counter()
                child = subprocess.run(
                    [sys.executable, "-c", _EXPORT, "export", *options],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                rate = round(rows / (time.perf_counter() - began))
                found[format_.value] = {"rows_per_s": rate, "peak_mib": int(child.stdout.split()[-1]) // 1024}
                sys.stdout.write(f"{format_}: {found[format_.value]}\n")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
