"""Every command of ours that the product or its documentation prints: where it stands, and whether it parses."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.command_line import command_tree
from tests.support.environment import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [path for path in sorted((ROOT / "worker").rglob("*.py")) if "versions" not in path.parts]
# A command in the middle of a text stands in backticks; at its end, behind a colon, it needs none.
_IN_BACKTICKS = re.compile(r"`(dashtam [^`]+)`")
_AT_THE_END = re.compile(r"(?::|->|→|\|)\s+(dashtam [a-z][^\n`;]*?)\.?\s*$", re.MULTILINE)
_ALONE = re.compile(r"^\s*(?:\$ )?(dashtam [a-z-][^\n]*)$", re.MULTILINE)
_BLOCK = re.compile(r"^ *```(?:sh|console)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SYNOPSIS = re.compile(r"[|\[…]|COMMAND| pro$| --fo$")
"""Several commands at once, in docs/cli.md's table; and words that a TAB would complete."""


def words_of(line: str) -> list[str]:
    """The words of one command; a shell takes the rest."""
    return shlex.split(re.split(r" (?:[<>|]|&&|2>)", line)[0], comments=True)[1:]


def found_command(words: list[str]) -> tuple[list[str], Any, list[str]]:
    """The path to a command, the command, and what is left for it."""
    command: Any = command_tree()
    path: list[str] = []
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    return path, command, words


def parse(line: str) -> None:
    """Raises as the command line does when this is typed."""
    path, command, words = found_command(words_of(line))
    assert path, f"no such command: {line}"
    if hasattr(command, "commands"):
        assert not [word for word in words if not word.startswith("-")], f"no such command: {line}"
        assert words or command.invoke_without_command, f"which command? {line}"
    parent = command_tree().make_context("dashtam", [path[0]], resilient_parsing=True)
    command.make_context(path[-1], [word for word in words if word != "--help"], parent=parent)


def name(line: str) -> None:
    """Fails unless there is such a command with these options: a text may speak of a command without calling it."""
    _, command, words = found_command(words_of(line))
    if hasattr(command, "commands"):
        assert not [word for word in words if not word.startswith("-")], f"no such command: {line}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help", "--install-completion"}, line


def _docstrings(tree: ast.AST) -> set[int]:
    """The constants that are docstrings, by their place in memory."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


def _texts(path: Path) -> Iterator[str]:
    """Every text of a module that may be shown; what an f-string puts in is `x`."""
    tree = ast.parse(path.read_text())
    own = _docstrings(tree)
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in own | parts:
            yield node.value


def _printed(text: str) -> set[str]:
    if text.startswith("dashtam x"):  # the line of `--version`
        return set()
    return {*_IN_BACKTICKS.findall(text), *_AT_THE_END.findall(text), *_ALONE.findall(text)}


PRINTED = sorted(
    {(path.relative_to(ROOT).as_posix(), line) for path in MODULES for text in _texts(path) for line in _printed(text)}
)
EXAMPLES = sorted(
    {
        (f"{path.name}:{node.name}", line)
        for path in (ROOT / "worker" / "cli").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for line in _ALONE.findall(ast.get_docstring(node) or "")
    }
)
IN_BLOCKS = sorted(
    {
        (page.name, line)
        for page in PAGES
        for block in _BLOCK.findall(page.read_text())
        for line in _ALONE.findall(block)
    }
)
NAMED = sorted(
    {
        (page.name, " ".join(span.split()))
        for page in PAGES
        for span in _IN_BACKTICKS.findall(page.read_text())
        if not _SYNOPSIS.search(span)
    }
)
