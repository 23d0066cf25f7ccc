"""Counts the tests of each directory into the table of `docs/testing.md`: `make figures`.

With `--check`, as CI calls it, nothing is written: it fails when a figure in the table is off by more than a tenth.
"""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "testing.md"
_TOLERANCE = 0.1
_QUICK = ("unit", "integration", "smoke")
_ROW = re.compile(r"^(\| `tests/(\w+)` \|.*\| )([^|]*)( \| )([^|]*)( \|)$", re.MULTILINE)


class Counts:
    """A plugin of pytest's that counts what is collected, by directory.

    Attributes:
        everything: all tests.
        quick: those that `make test` runs.
    """

    def __init__(self) -> None:
        self.everything: Counter[str] = Counter()
        self.quick: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Called by pytest."""
        for item in session.items:
            directory = item.nodeid.split("/")[1]
            self.everything[directory] += 1
            is_quick = directory in _QUICK and not item.get_closest_marker("deep")
            self.quick[directory] += is_quick


def counted() -> Counts:
    """All tests, collected and not run."""
    counts = Counts()
    with redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")], plugins=[counts])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"the tests cannot be collected:\n{said.getvalue()[-2000:]}")
    return counts


def rounded(count: int) -> str:
    """To two figures: `2,900`."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{round(count / step) * step:,}"


def is_near(stated: str, count: int) -> bool:
    """Whether a figure of the table is still about the true one."""
    number = int(stated.replace(",", "") or 0)
    return abs(number - count) <= max(2.0, _TOLERANCE * count)


def main() -> None:
    """Writes the table's figures, or checks them."""
    counts, text = counted(), PAGE.read_text()
    rows = {match[2]: match for match in _ROW.finditer(text)}
    if rows.keys() != counts.everything.keys():
        raise SystemExit(f"docs/testing.md has the rows {sorted(rows)}, tests are in {sorted(counts.everything)}")
    if "--check" in sys.argv:
        wrong = [
            f"tests/{name}: {stated} are stated, {true} exist"
            for name, match in rows.items()
            for stated, true in ((match[3], counts.everything[name]), (match[5], counts.quick[name]))
            if not is_near(stated, true)
        ]
        raise SystemExit("; ".join([*wrong, "write them anew: make figures"]) if wrong else 0)
    PAGE.write_text(
        _ROW.sub(
            lambda row: f"{row[1]}{rounded(counts.everything[row[2]])}{row[4]}{rounded(counts.quick[row[2]])}{row[6]}",
            text,
        )
    )


if __name__ == "__main__":
    main()
