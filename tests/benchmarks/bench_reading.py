"""Rows per second of the readers, on pages of 500 rows: splitting a page into raw records, and mapping records.

    python tests/benchmarks/bench_reading.py

The last line is JSON; `json_loads` in the same run is the yardstick.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import msgspec

from worker.integrations.plaid import pages as plaid_pages
from worker.integrations.schwab import pages as schwab_pages

_ROWS = 500
_ROUNDS = 60
_NUMBER = "12345678"


def _plaid_row(i: int) -> dict[str, object]:
    return {
        "transaction_id": f"tx_{i:030d}",
        "account_id": "acc_0123456789abcdef0123456789abcdef",
        "amount": 72.1,
        "iso_currency_code": "USD",
        "unofficial_currency_code": None,
        "date": "2025-03-05",
        "datetime": None,
        "authorized_date": "2025-03-03",
        "authorized_datetime": None,
        "name": "CORNER GROCERY 12",
        "merchant_name": "Corner Grocery",
        "pending": False,
        "pending_transaction_id": None,
        "payment_channel": "in store",
        "transaction_code": None,
        "personal_finance_category": {
            "primary": "FOOD_AND_DRINK",
            "detailed": "FOOD_AND_DRINK_GROCERIES",
            "confidence_level": "HIGH",
        },
        "location": {"address": None, "city": None, "region": None},
        "counterparties": [],
    }


def _schwab_row(i: int) -> dict[str, object]:
    return {
        "activityId": 70_000_000_000 + i,
        "time": "2025-03-04T15:04:05+0000",
        "accountNumber": _NUMBER,
        "type": "TRADE",
        "status": "VALID",
        "subAccount": "MARGIN",
        "tradeDate": "2025-03-04T15:04:05+0000",
        "settlementDate": "2025-03-05T00:00:00+0000",
        "positionId": 2_800_001,
        "orderId": 1_000_000_001,
        "netAmount": -1512.66,
        "transferItems": [
            {
                "instrument": {"assetType": "CURRENCY", "symbol": "CURRENCY_USD", "instrumentId": 1},
                "amount": 0.66,
                "cost": -0.66,
                "feeType": "COMMISSION",
            },
            {
                "instrument": {
                    "assetType": "EQUITY",
                    "symbol": "ACME",
                    "cusip": "000000AA1",
                    "instrumentId": 1_804_000,
                },
                "amount": 10.0,
                "cost": -1512.0,
                "price": 151.2,
                "positionEffect": "OPENING",
            },
        ],
    }


def _rate(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return _ROWS / best


def main() -> None:
    """Measure and print."""
    plaid = msgspec.json.encode(
        {
            "added": [_plaid_row(i) for i in range(_ROWS)],
            "modified": [],
            "removed": [],
            "next_cursor": "c",
            "has_more": False,
        }
    )
    schwab = msgspec.json.encode([_schwab_row(i) for i in range(_ROWS)])

    def split_plaid() -> object:
        return plaid_pages.sync_page(plaid, plaid_pages.sync.page(plaid))

    def split_schwab() -> object:
        return schwab_pages.transactions_page(schwab, schwab_pages.rows.page(schwab), "key", _NUMBER)

    result: dict[str, float] = {}
    for name, body, split in (("plaid", plaid, split_plaid), ("schwab", schwab, split_schwab)):
        page = split()
        rows, mapper = page.transactions, page.map_transaction  # type: ignore[attr-defined]
        result[f"{name}_split_rows_per_s"] = round(_rate(split))
        result[f"{name}_map_rows_per_s"] = round(_rate(lambda rows=rows, mapper=mapper: [mapper(row) for row in rows]))  # type: ignore[misc]
        result[f"{name}_json_loads_rows_per_s"] = round(_rate(lambda body=body: json.loads(body)))  # type: ignore[misc]
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
