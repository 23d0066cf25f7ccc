"""The contract tests: checks that every integration must pass against its own stand-in.

`dashtam integrations check KEY` runs them. A plug-in's own tests run the same checks in this way:

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    def test_contract(check: Check) -> None:
        check(Subject(Toy, STAND_IN))

A check that fails raises `AssertionError` with a sentence that says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.integrations.kit.contract import calls, credentials, hooks, reading
from worker.integrations.kit.contract.subject import Subject

Check = Callable[[Subject], None]

CHECKS: tuple[Check, ...] = (*credentials.CHECKS, *calls.CHECKS, *reading.CHECKS, *hooks.CHECKS)

__all__ = ["CHECKS", "Check", "Result", "Subject", "name_of", "run"]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check.

    Attributes:
        check: its name, in words.
        missing: what is missing; empty when the check passed.
    """

    check: str
    missing: str


def name_of(check: Check) -> str:
    """A check's name, in words."""
    return check.__name__.replace("_", " ")


def run(subject: Subject) -> Iterator[Result]:
    """Runs all checks, one after the other, and yields their results. After a failed check, the others still run."""
    for check in CHECKS:
        try:
            check(subject)
        except AssertionError as error:
            missing = str(error) or "it does not hold"
        except Exception as error:  # the integration or its stand-in may raise anything
            missing = f"it raised {type(error).__name__}: {error}"
        else:
            missing = ""
        yield Result(name_of(check), missing)
