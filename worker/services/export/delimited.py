"""CSV, as RFC 4180 says: a line of column names, then one line for each row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, TextIO

# A spreadsheet runs a cell that begins with one of these as a formula. The texts are written by others.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def write(columns: Sequence[str], rows: Iterable[Any], file: TextIO) -> None:
    """Writes rows. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULAS) else value
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if isinstance(value, date) else value  # a datetime is a date, too
