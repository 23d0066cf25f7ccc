"""Rules of the code that no linter knows; the layers of imports are import-linter's (`make lint`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.environment import ROOT

FILES = sorted((ROOT / "worker").rglob("*.py")) + sorted((ROOT / "schedules").rglob("*.py"))
# settings reads it for everybody; the others start processes or prepare what settings, or a library, will read.
MAY_READ_THE_ENVIRONMENT = (
    *("worker/settings.py", "worker/app.py", "worker/metric_files.py"),
    *("worker/cli/", "worker/devstack/", "worker/sandbox/"),
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _reads_the_environment(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            yield node.lineno


def test_environment_is_read_by_settings_alone() -> None:
    others = [path for path in FILES if not _name(path).startswith(MAY_READ_THE_ENVIRONMENT)]

    assert {_name(path): lines for path in others if (lines := list(_reads_the_environment(path)))} == {}


def test_every_suppressed_lint_rule_names_itself() -> None:
    bare = [
        f"{_name(path)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if line.rstrip().endswith(("# noqa", "# type: ignore"))
    ]

    assert bare == []


def test_unit_tests_do_not_sleep() -> None:
    slept = [
        f"{_name(path)}:{node.lineno}"
        for path in sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ]

    assert slept == []
