"""dlt's side of `bench_peers`, run by the Python of its own environment.

    python peer_dlt.py DATABASE_URL WORK_DIRECTORY ROWS.jsonl CHANGED_ROWS.jsonl

The last line is JSON: rows per second of a first load and of a second one, merged by key.
"""

import json
import os
import sys
import time

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"

import dlt

PAGE = 500


def pages(path):
    with open(path) as lines:
        page = []
        for line in lines:
            page.append(json.loads(line))
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page


def main(database_url, directory, *files):
    pipeline = dlt.pipeline(
        pipeline_name="peer",
        pipelines_dir=directory,
        destination=dlt.destinations.postgres(credentials=database_url),
        dataset_name="peer_dlt",
    )
    rates = []
    for path in files:
        rows = sum(len(page) for page in pages(path))
        resource = dlt.resource(
            pages(path),
            name="transactions",
            primary_key=("account_key", "transaction_key"),
            write_disposition="merge",
        )
        started = time.perf_counter()
        pipeline.run(resource).raise_on_failed_jobs()
        rates.append(rows / (time.perf_counter() - started))
    sys.stdout.write(json.dumps(dict(zip(("load_rows_per_s", "resync_rows_per_s"), rates, strict=True))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
