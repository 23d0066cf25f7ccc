"""A small parser of PromQL: enough to tell a well-formed expression and the series that it selects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?![\w.]))|(?P<duration>(?:\d+(?:ms|[smhdwy]))+|\$__\w+)|(?P<name>[a-zA-Z_:][\w:]*)"
    r"|(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<op>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){}\[\],]))"
)
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev"}
_FUNCTIONS = {
    *("rate", "increase", "irate", "delta", "deriv", "min_over_time", "max_over_time", "avg_over_time"),
    *("histogram_quantile", "time", "absent", "clamp_min", "clamp_max", "abs", "vector", "scalar", "round"),
}
_RANGES = {name for name in _FUNCTIONS if name.endswith("_over_time")} | {"rate", "increase", "irate", "delta", "deriv"}
_OPERATORS = {"+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "and", "or", "unless"}
_COMPARISONS = {"=", "!=", "=~", "!~"}


@dataclass
class Selection:
    """One selected series and the labels that its matchers name, with their values."""

    metric: str
    matchers: dict[str, str] = field(default_factory=dict)
    has_range: bool = False


class PromQLError(ValueError):
    """The expression is not well-formed."""


class Expression:
    """A parsed expression.

    Attributes:
        selections: every series that it selects.
        grouped_by: every label that it groups or matches by.

    Raises:
        PromQLError: says where it stopped making sense.
    """

    def __init__(self, text: str) -> None:
        self.selections: list[Selection] = []
        self.grouped_by: set[str] = set()
        self._tokens = list(_tokens(text))
        self._at = 0
        self._expression()
        if self._at != len(self._tokens):
            raise PromQLError(f"{self._peek()!r} was not expected in {text}")

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        token = self._peek()
        if not token or (expected and token != expected):
            raise PromQLError(f"{expected or 'more'} was expected, not {token or 'the end'}")
        self._at += 1
        return token

    def _expression(self) -> None:
        self._operand()
        while self._peek() in _OPERATORS:
            self._take()
            if self._peek() == "bool":
                self._take()
            if self._peek() in ("on", "ignoring"):
                self._take()
                self._labels()
                if self._peek() in ("group_left", "group_right"):
                    self._take()
                    self._labels()
            self._operand()

    def _operand(self) -> None:
        if self._peek() == "-":
            self._take()
        if self._peek() == "(":
            self._take()
            self._expression()
            self._take(")")
        elif self._kind() in ("number", "string"):
            self._take()
        elif self._kind() == "name":
            self._named(self._take())
        else:
            raise PromQLError(f"a value was expected, not {self._peek() or 'the end'}")

    def _named(self, name: str) -> None:
        if name in _AGGREGATIONS:
            if self._peek() in ("by", "without"):
                self._take()
                self._labels()
            self._arguments()
            return
        if self._peek() == "(":
            if name not in _FUNCTIONS:
                raise PromQLError(f"no such function: {name}")
            before = len(self.selections)
            self._arguments()
            if name in _RANGES and not all(found.has_range for found in self.selections[before:]):
                raise PromQLError(f"{name} needs a range")
            if name not in _RANGES | {"absent"} and name != "histogram_quantile":
                self._require_no_range(before)
            return
        self._selector(Selection(name))

    def _require_no_range(self, before: int) -> None:
        if any(found.has_range for found in self.selections[before:]):
            raise PromQLError("a range where a value was expected")

    def _arguments(self) -> None:
        self._take("(")
        while self._peek() != ")":
            self._expression()
            if self._peek() != ")":
                self._take(",")
        self._take(")")

    def _labels(self) -> None:
        self._take("(")
        while self._peek() != ")":
            self.grouped_by.add(self._take())
            if self._peek() != ")":
                self._take(",")
        self._take(")")

    def _selector(self, found: Selection) -> None:
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                label, comparison = self._take(), self._take()
                if comparison not in _COMPARISONS or self._kind() != "string":
                    raise PromQLError(f"{label}{comparison}{self._peek()} is no matcher")
                found.matchers[label] = self._take().strip('"')
                if self._peek() != "}":
                    self._take(",")
            self._take("}")
        if self._peek() == "[":
            self._take()
            if self._kind() != "duration":
                raise PromQLError(f"{self._peek()} is no duration")
            self._take()
            self._take("]")
            found.has_range = True
        self.selections.append(found)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise PromQLError(f"{text[at : at + 10]!r} makes no sense")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found
