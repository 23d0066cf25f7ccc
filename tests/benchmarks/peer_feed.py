"""What a peer's connector does before its own work begins: fetch the feed's pages, decode them, make flat rows.

Run by the Python of the peers' own environments, so with the standard library alone.
"""

import http.client
import json
from urllib.parse import urlsplit

PAGE = 500
HEADERS = {
    "content-type": "application/json",
    "plaid-client-id": "sandbox-client",
    "plaid-secret": "sandbox-secret",
}


def pages(url, access_token):
    """All pages of a login's transactions, as lists of flat rows."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    cursor, more = None, True
    while more:
        asked = {"access_token": access_token, "count": PAGE}
        asked |= {"cursor": cursor} if cursor else {"options": {"days_requested": 730}}
        connection.request("POST", f"{parts.path}/transactions/sync", json.dumps(asked), HEADERS)
        answer = json.loads(connection.getresponse().read())
        yield [flat(row) for row in answer["added"] + answer["modified"]]
        cursor, more = answer["next_cursor"], answer["has_more"]
    connection.close()


def flat(row):
    category = row["personal_finance_category"] or {}
    return {
        "account_key": row["account_id"],
        "transaction_key": row["transaction_id"],
        "type": row["transaction_type"],
        "subtype": category.get("primary"),
        "status": "pending" if row["pending"] else "posted",
        "amount": -row["amount"],
        "currency": row["iso_currency_code"],
        "posted_date": row["date"],
        "occurred_at": row["datetime"],
        "description": row["name"],
        "counterparty": row["merchant_name"],
        "category": category.get("detailed"),
        "pending_key": row["pending_transaction_id"],
        "provider_type": row["transaction_code"],
    }
