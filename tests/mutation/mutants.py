"""One small change to a source at a time: cosmic-ray's operators, annotations left out."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.exception_replacer import ExceptionReplacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Name
from parso.tree import NodeOrLeaf

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed source.

    Attributes:
        line: where the change begins, from 1.
        place: the function or class that it is in, dotted; empty at the top level of the module.
        before: the changed lines as they are, without indentation, joined by a blank.
        after: what they become.
        source: the whole changed source.
    """

    line: int
    place: str
    before: str
    after: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of `source`, each once.

    Annotations are left out: nothing that runs reads them, so a mutant of one cannot be killed.
    """
    tree = ast.parse(source)
    annotations = list(_annotations(tree))
    nodes = list(ast_nodes(get_ast(source)))
    seen = {source}
    for operator in _operators():
        positions = [(node, position) for node in nodes for position in operator.mutation_positions(node)]
        for occurrence, (node, (start, _)) in enumerate(positions):
            if node.parent is not None and node.parent.type == "parameters":  # the `*` of keyword-only parameters
                continue
            if any(begin <= start < end for begin, end in annotations):
                continue
            changed = mutate_code(source, operator, occurrence)
            if changed is None or changed in seen:
                continue
            seen.add(changed)
            yield _described(source, changed, tree)


def _operators() -> Iterator[Operator]:
    for name in operator_names():
        operator = get_operator(name)
        if operator is ExceptionReplacer:
            yield _HandlerForNothing()
        elif not operator.arguments():  # the others must be told what to put in
            yield operator()


class _HandlerForNothing(ExceptionReplacer):  # type: ignore[misc]
    """A handler that does not catch one of its exceptions. Cosmic-ray's own fails at dotted names (8.7.0)."""

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        caught = self._name_nodes(node)[index]
        siblings = caught.parent.children
        siblings[siblings.index(caught)] = Name(
            "NothingRaisesThis", caught.start_pos, prefix=caught.get_first_leaf().prefix
        )
        return node

    @staticmethod
    def _name_nodes(node: NodeOrLeaf) -> list[NodeOrLeaf]:
        caught = node.children[1]
        if caught.type != "atom":
            return [caught]
        inside = caught.children[1]
        return inside.children[::2] if inside.type == "testlist_comp" else [inside]


def _annotations(tree: ast.AST) -> Iterator[tuple[Position, Position]]:
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            found = getattr(node, name, None)
            if found is not None:
                yield (found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)


def _described(source: str, changed: str, tree: ast.AST) -> Mutant:
    old, new = source.splitlines(), changed.splitlines()
    edits = [
        edit for edit in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if edit[0] != "equal"
    ]
    first, last = edits[0], edits[-1]
    line = first[1] + 1
    before, after = old[first[1] : last[2]], new[first[3] : last[4]]
    return Mutant(line, _place(tree, line), _joined(before), _joined(after), changed)


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _place(tree: ast.AST, line: int) -> str:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if begin <= line <= (node.end_lineno or begin):
                names.append((begin, node.name))
    return ".".join(name for _, name in sorted(names))
