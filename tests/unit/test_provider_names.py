"""No code outside a provider's folder names the provider: it would have to be changed for the next one.

Docstrings, comments and the examples of `--help` may. One file may list the demonstration's logins.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from tests.support.tracing import untraced
from worker.integrations.registry import OURS, REGISTRY, package_of

HOME = ROOT / "worker" / "integrations"
SERVED = {"simplefin"}
"""The protocol of this provider is one that our HTTP API serves as well, and the code that serves it names it."""
OF_US = {key for key in REGISTRY if package_of(key) == OURS}
NAMES = re.compile("|".join(sorted(OF_US - SERVED)), re.IGNORECASE)
MAY = {"worker/cli/demo_logins.py"}  # the list of the demonstration's logins


def named_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every name, import and string that names a provider; docstrings and help texts aside."""
    told = {id(node) for spoken in ast.walk(tree) for node in _told_to_people(spoken)}
    for node in ast.walk(tree):
        if id(node) in told:
            continue
        for text in _texts(node):
            if NAMES.search(text):
                yield getattr(node, "lineno", 0), text


def _told_to_people(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or hasattr(node, "body"):
        body = getattr(node, "body", [])
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield statement.value
    if isinstance(node, ast.keyword) and node.arg == "help":
        yield from ast.walk(node.value)


def _texts(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(value=str() as text) | ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
            yield text
        case ast.alias(name=text) | ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text):
            yield text
        case ast.ClassDef(name=text) | ast.ImportFrom(module=str() as text) | ast.keyword(arg=str() as text):
            yield text


@untraced()
def offences() -> dict[str, list[tuple[int, str]]]:
    """What each file outside the providers' folders names."""
    ours = {HOME / key for key in REGISTRY}
    found = {}
    for top in ("worker", "schedules"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if not ours.isdisjoint(path.parents) or not NAMES.search(text := path.read_text()):
                continue
            if named := list(named_in(ast.parse(text))):
                found[str(path.relative_to(ROOT))] = named
    return found


@pytest.mark.deep
def test_no_code_outside_its_folder_names_a_provider() -> None:
    found = {file: named for file, named in offences().items() if file not in MAY}

    assert found == {}


def test_at_most_one_file_may_name_providers() -> None:
    assert len(MAY) <= 1
    assert all((ROOT / file).exists() for file in MAY)


@pytest.mark.parametrize(
    "code",
    [
        "KEY = 'plaid'",
        "from worker.integrations.schwab.integration import Schwab",
        "def schwab_url(): ...",
        "def f(plaid): ...",
        "x.plaid_token()",
        "SchwabProfile",
        "f(schwab=1)",
        "def f():\n    return f'/admin/plaid/{x}'",
    ],
)
def test_each_way_of_naming_one_is_seen(code: str) -> None:
    assert list(named_in(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        '"""Plaid does so."""',
        'X = 1\n"""Schwab\'s limit."""',
        'def f():\n    """As with plaid."""',
        "class A:\n    x: int = 1\n    '''Schwab'''",
        "k: Annotated[str, typer.Option(help='schwab, plaid, …')]",
        "x = 1  # plaid",
    ],
)
def test_what_is_told_to_people_is_not(code: str) -> None:
    assert not list(named_in(ast.parse(code)))


def test_folders_that_are_left_out_exist() -> None:
    assert all((Path(HOME) / key).is_dir() for key in REGISTRY if package_of(key) == OURS)
