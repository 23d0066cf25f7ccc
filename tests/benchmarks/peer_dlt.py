"""dlt's side of `bench_peers`, run by the Python of its own environment: one pass, merged by key.

    python peer_dlt.py DATABASE_URL WORK_DIRECTORY PLAID_URL ACCESS_TOKEN

The last line is JSON: rows and seconds.
"""

import json
import os
import sys
import time

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"

import dlt
from peer_feed import pages


def main(database_url, directory, plaid_url, access_token):
    pipeline = dlt.pipeline(
        pipeline_name="peer",
        pipelines_dir=directory,
        destination=dlt.destinations.postgres(credentials=database_url),
        dataset_name="peer_dlt",
    )
    rows = 0

    def counted():
        nonlocal rows
        for page in pages(plaid_url, access_token):
            rows += len(page)
            yield page

    resource = dlt.resource(
        counted(),
        name="transactions",
        primary_key=("account_key", "transaction_key"),
        write_disposition="merge",
    )
    started = time.perf_counter()
    pipeline.run(resource).raise_on_failed_jobs()
    sys.stdout.write(json.dumps({"rows": rows, "seconds": time.perf_counter() - started}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
