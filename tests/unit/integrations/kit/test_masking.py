from __future__ import annotations

import json

import pytest

from worker.integrations.kit.masking import last_four, masked


def test_account_numbers_keep_their_last_four() -> None:
    record = {"accountNumber": "12345678", "nested": {"iban": "DE89370400440532013000", "number": 87654321}}

    assert masked(json.dumps(record).encode()) == {
        "accountNumber": "…5678",
        "nested": {"iban": "…3000", "number": "…4321"},
    }


def test_numbers_within_texts_and_keys_are_masked() -> None:
    assert masked(b'{"status":"see 12345678 today","12345678":1}') == {"status": "see …5678 today", "…5678": "1"}


@pytest.mark.parametrize("field", ["name", "description", "memo", "original_description", "merchant_name", "note"])
def test_free_text_may_name_anybody_and_is_only_measured(field: str) -> None:
    record = {field: "Zelle to Ann Lee", "nested": [{field: ["Ann Lee"]}]}

    assert masked(json.dumps(record).encode()) == {
        field: "*** (16 characters)",
        "nested": [{field: ["*** (7 characters)"]}],
    }


@pytest.mark.deep
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "TRADE"),
        ("payment_channel", "in store"),
        ("iso_currency_code", "USD"),
        ("transaction_id", "tx_a1"),
        ("positionEffect", "OPENING"),
        ("assetType", "EQUITY"),
        ("date", "2025-03-05"),
        ("tradeDate", "2025-03-04T15:04:05+0000"),
        ("amount", "NaN"),
        ("quantity", "-1,512.66"),
    ],
)
def test_words_of_the_provider_figures_and_dates_are_kept(field: str, value: str) -> None:
    assert masked(json.dumps({field: value}).encode()) == {field: value}


def test_secrets_and_people_are_left_out() -> None:
    record = b'{"access_token":"abc","user":{"firstName":"Ann"},"owner":["Ann"],"email":"a@b.c","type":"TRADE"}'

    assert masked(record) == {
        "access_token": "***",
        "user": "***",
        "owner": "***",
        "email": "***",
        "type": "TRADE",
    }


def test_people_on_the_other_side_of_a_payment_are_left_out() -> None:
    record = {
        "payment_meta": {"payee": "Ann Lee", "payer": "Bo Ek", "by_order_of": "Cy Dow", "payment_method": "ACH"},
        "counterparties": [{"name": "Ann Lee", "account_numbers": {"bacs": {"account": "31926819"}}}],
        "accountHolderName": "Ann Lee",
    }

    assert masked(json.dumps(record).encode()) == {
        "payment_meta": {"payee": "***", "payer": "***", "by_order_of": "***", "payment_method": "ACH"},
        "counterparties": "***",
        "accountHolderName": "***",
    }


def test_short_account_number_is_masked_too() -> None:
    assert masked(b'{"account":"123456","sort_code":"601613"}') == {"account": "\u20263456", "sort_code": "\u20261613"}


def test_figures_are_kept_as_text_and_endless_ones_cut() -> None:
    kept = masked(b'{"amount":72.10,"nan":NaN,"none":null,"yes":true,"huge":' + b"9" * 5000 + b"}")

    assert kept.pop("huge").endswith("… (5000 digits)")
    assert kept == {"amount": "72.10", "nan": "NaN", "none": None, "yes": True}


@pytest.mark.parametrize("raw", [b"\xff", b"{", b"[" * 100_000])
def test_what_is_not_json_is_only_measured(raw: bytes) -> None:
    assert masked(raw) == {"bytes": len(raw)}


def test_what_is_not_an_object_is_wrapped() -> None:
    assert masked(b"null") == {"value": None}
    assert masked(b"[1]") == {"value": ["1"]}


def test_large_records_are_cut() -> None:
    kept = masked(json.dumps({"text": "x" * 5000, "list": list(range(500)), "deep": _nested(40)}).encode())

    assert len(json.dumps(kept)) < 3000


def test_what_postgres_cannot_store_is_gone() -> None:
    kept = masked(b'{"status":"a\\u0000b\\ud800"}')

    assert kept == {"status": "ab?"}


def test_short_numbers_are_not_given_away_whole() -> None:
    assert last_four("12345678") == "5678"
    assert last_four("12345") == "45"


def _nested(depth: int) -> object:
    return {"x": _nested(depth - 1)} if depth else 1
