"""Masks a provider's record for quarantine: field names, known words and numbers stay, personal data is removed.

Free text may contain anybody's name. So only the length of a text is kept, unless its field is known to hold one of the
provider's own fixed words, or the text is a number or a date. Long numbers are shortened everywhere.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SECRET = re.compile(r"token|secret|password|authorization|cookie|ssn|tax_?id", re.IGNORECASE)
_NUMBER = re.compile(
    r"account_?(number|no)$|iban|bban|pan$|routing|account_?mask$|^number$|^account$|sort_?code", re.IGNORECASE
)
_PERSON = re.compile(
    r"^(user|owners?|account_?owner|holder|.*(first|last|middle|full|holder|owner|person)_?names?|nick_?name"
    r"|pay(ee|er)|by_?order_?of|counterpart(y|ies)|beneficiary|location|.*address(es)?|guarantor|e?mails?|phone.*)$",
    re.IGNORECASE,
)
_WORDS = re.compile(
    r"^(type|kind|status|state|reason|code|category|primary|detailed|confidence_level|sub_?account|symbol|cusip|isin"
    r"|value|.*(_|[a-z])(type|subtype|status|code|currency|channel|effect|category|method|instruction|ids?|Type|Status"
    r"|Code|Currency|Effect|Instruction|Ids?|SubType|Symbol))$"
)
_FIGURE = re.compile(r"[-+0-9.,:/eE ]*(… \(\d+ digits\))?|NaN|-?Infinity")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(T[0-9:.]+(Z|[-+]\d\d:?\d\d)?)?")
_DIGITS = re.compile(r"\d[\d -]{5,}\d")
_LONG_NUMBER = re.compile(r"\d{4,}(?=\d{4})")
_MAX_TEXT = 300
_MAX_ITEMS = 60
_MAX_DEPTH = 8


def last_four(number: str) -> str:
    """The last four characters of an account number, or the last two if it has five characters or fewer."""
    return number[-4:] if len(number) > 5 else number[-2:]


def without_numbers(text: str) -> str:
    """`text`, in which numbers of eight digits or more are shortened to their last four."""
    return _LONG_NUMBER.sub("…", text)


def masked(raw: bytes) -> dict[str, Any]:
    """A record that may be stored and shown: values that may contain a person, an account or a secret are masked.

    Numbers become text, so that they are never converted to floats. A value that is not an object is wrapped as
    `{"value": …}`. For text that is not JSON, only its size is kept: `{"bytes": 512}`.
    """
    try:
        kept = _mask("", json.loads(raw, parse_float=_number, parse_int=_number, parse_constant=_number), 0)
    except (ValueError, RecursionError):
        return {"bytes": len(raw)}
    return kept if isinstance(kept, dict) else {"value": kept}


def _number(text: str) -> str:
    return text if len(text) <= 50 else f"{text[:10]}… ({len(text)} digits)"


def _mask(key: str, value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        items = list(value.items())[:_MAX_ITEMS]
        return {_short(key): _mask_field(key, item, depth) for key, item in items}
    if isinstance(value, list):
        return [_mask(key, item, depth + 1) for item in value[:_MAX_ITEMS]]
    return _text(key, value) if isinstance(value, str) else value


def _mask_field(key: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(key) or _PERSON.match(key):
        return "***"
    if _NUMBER.search(key) and not isinstance(value, dict):
        return f"…{_storable(last_four(str(value)))}"
    return _mask(key, value, depth + 1)


def _text(key: str, text: str) -> str:
    if _MOMENT.fullmatch(text):
        return text
    if _WORDS.match(key) or _FIGURE.fullmatch(text) or not text.strip():
        return _short(text)
    return f"*** ({len(text)} characters)"


def _short(text: str) -> str:
    return _DIGITS.sub(lambda match: f"…{match[0][-4:]}", _storable(text[:_MAX_TEXT]))


def _storable(text: str) -> str:
    """`text` without the characters that Postgres refuses."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
