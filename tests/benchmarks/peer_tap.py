"""A Singer tap for target-postgres: messages on standard output, one line each.

python peer_tap.py PLAID_URL ACCESS_TOKEN      # without arguments: the schema alone
"""

import json
import sys

from peer_feed import pages

TEXT = {"type": ["string", "null"]}
NAMES = (
    "account_key transaction_key type subtype status currency occurred_at description counterparty category"
    " pending_key provider_type"
)
SCHEMA = {
    "type": "SCHEMA",
    "stream": "transactions",
    "schema": {
        "type": "object",
        "properties": dict.fromkeys(NAMES.split(), TEXT)
        | {"amount": {"type": ["number", "null"]}, "posted_date": {"type": "string", "format": "date"}},
    },
    "key_properties": ["account_key", "transaction_key"],
}


def main(*source):
    write = sys.stdout.write
    write(json.dumps(SCHEMA) + "\n")
    for page in pages(*source) if source else ():
        for row in page:
            write(json.dumps({"type": "RECORD", "stream": "transactions", "record": row}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
