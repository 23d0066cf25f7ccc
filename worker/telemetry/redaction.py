"""Masks secrets in text before it is written: known values, values beside certain names, and texts of certain shapes.

The known values are those of the configuration (`remember`). The names are words such as `password`. The shapes are
those of tokens, keys, authorization headers, URLs with a password, and account numbers; each integration adds its
provider's shapes (`remember_shapes`). Ids and times stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"

_known: set[str] = set()
_known_pattern: re.Pattern[str] | None = None
_shapes: set[str] = set()
_shapes_pattern: re.Pattern[str] | None = None

_SHORTEST_KNOWN = 8
_MAX_DEPTH = 6

_SECRET_NAME = re.compile(
    r"(?:tokens?|secrets?|password|passwd|passphrase|authorization|cookie|api_?key|app_?key|encryption_?keys?|"
    r"private_?key|client_?id|credentials?|signature|ssn|tax_?id)$"
)
_NUMBER_NAME = re.compile(r"(?:account|card|routing)_?(?:number|no)$|^(?:iban|bban|pan)$")
_MEASURE_NAME = re.compile(
    r"(?:^|_)(?:bytes|size|length|rows|count|seconds|s|ms|ns|pid|port|seq|lineno|thread|process)$"
)

# Matches a value after one of these words and `=` or `:`, with or without quotes: JSON, forms, reprs, query strings.
_NAMED = re.compile(
    r"(?i)(?P<name>[\"']?\b[\w-]*(?:token|secret|password|passwd|passphrase|api_?key|app_?key|"
    r"encryption_?keys?|private_?key|client_?id|credentials?|cookie)[\"']?\s*[=:]\s*)"
    r"(?P<quote>[\"'])?(?P<value>(?(quote)(?:(?!(?P=quote)).)+|[^\s,;&\"'}\])]+))"
)
_HEADER = re.compile(r"(?i)(authorization[\"']?\s*[=:,]\s*[\"']?)(?:(bearer|basic)\s+)?[^\s,;\"'}\])]+")
_SCHEME = re.compile(r"\b([Bb]earer|BEARER|[Bb]asic|BASIC)\s+(?=[^\s,;\"'}\])]*[\d+/=._@-])[^\s,;\"'}\])]{8,}")
_USERINFO = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"]*@")
_QUERY = re.compile(r"(?i)(?<=[?&])(code|state|session|key|sig|signature)=[^&\s'\"#]+")

_SHAPES = re.compile(
    r"\bgAAAAA[\w=-]{20,}"  # Fernet
    r"|(?<![\w/+-])[A-Za-z0-9_-]{43}=(?!\w)"  # a Fernet key
    r"|\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"  # JWT
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
# Matches long texts that look random: small letters, capital letters and digits together. Ids, hashes and names do not
# match.
_OPAQUE = re.compile(r"(?<![\w./+-])(?=[\w+=@-]*\d)(?=[\w+=@-]*[a-z])(?=[\w+=@-]*[A-Z])[\w+-]{28,}[=@]{0,2}")

_NUMBERS = re.compile(
    r"(?P<keep>"
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
    r"|\b(?=[0-9a-f]*[a-f])[0-9a-f]{16,}\b"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?"
    r"|(?<![\d.])\d{1,7}\.\d+|\b1\d{9}\.\d+"  # a fraction; seconds since 1970
    r")|(?P<number>\d{4}(?:[ -]\d{4}){2,4}|\d{8,})"
)


def remember(values: Iterable[str]) -> None:
    """Masks these exact values from now on. Short values are ignored; only the other rules apply to them."""
    global _known_pattern
    fresh = {value for value in values if len(value) >= _SHORTEST_KNOWN} - _known
    if fresh:
        _known.update(fresh)
        longest_first = sorted(_known, key=len, reverse=True)
        _known_pattern = re.compile("|".join(map(re.escape, longest_first)))


def remember_shapes(expressions: Iterable[str]) -> None:
    """Masks from now on what matches one of these regular expressions, for example the tokens of one provider."""
    global _shapes_pattern
    _shapes.update(expressions)
    if _shapes:
        _shapes_pattern = re.compile("|".join(f"(?:{shape})" for shape in sorted(_shapes)))


def redact(text: str) -> str:
    """The text with its secrets masked; account numbers keep their last four digits."""
    if _known_pattern is not None:
        text = _known_pattern.sub(MASK, text)
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    text = _HEADER.sub(rf"\g<1>{MASK}", text)
    text = _SCHEME.sub(rf"\g<1> {MASK}", text)
    text = _QUERY.sub(rf"\g<1>={MASK}", text)
    text = _NAMED.sub(_mask_named, text)
    text = _SHAPES.sub(MASK, text)
    if _shapes_pattern is not None:
        text = _shapes_pattern.sub(MASK, text)
    text = _OPAQUE.sub(MASK, text)
    return _NUMBERS.sub(_mask_number, text)


def redact_value(value: Any, name: str = "", depth: int = 0) -> Any:
    """A value of a log line with its secrets masked, in types that JSON has; `name` is the value's name in the line."""
    if value is None or isinstance(value, bool | float):
        return value
    if name and _SECRET_NAME.search(name.lower()) and not isinstance(value, int):
        return MASK
    if isinstance(value, int):
        return value if abs(value) < 10_000_000 or _MEASURE_NAME.search(name) else redact(str(value))
    if isinstance(value, str) and not _NUMBER_NAME.search(name.lower()):
        return redact(value)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_value(item, str(key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, name, depth + 1) for item in value]
    text = redact(str(value))
    return f"…{text[-4:]}" if _NUMBER_NAME.search(name.lower()) and len(text) > 5 else text


def _mask_named(match: re.Match[str]) -> str:
    if match["value"].lower() in ("none", "null", "true", "false", MASK) or match["value"].isdigit():
        return match[0]
    return f"{match['name']}{match['quote'] or ''}{MASK}"


def _mask_number(match: re.Match[str]) -> str:
    number = match["number"]
    return match[0] if number is None else f"…{number[-4:]}"
