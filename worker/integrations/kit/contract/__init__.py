"""What every integration must do, whichever provider it speaks to: checks that it runs against its own stand-in.

A plug-in's own tests run them so, and `dashtam integrations check KEY` runs the same:

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    def test_contract(check: Check) -> None:
        check(Subject(Toy, STAND_IN))

A check that fails raises `AssertionError` with a sentence about what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.integrations.kit.contract import calls, credentials, reading
from worker.integrations.kit.contract.subject import Subject

Check = Callable[[Subject], None]

CHECKS: tuple[Check, ...] = (*credentials.CHECKS, *calls.CHECKS, *reading.CHECKS)

__all__ = ["CHECKS", "Check", "Result", "Subject", "name_of", "run"]


@dataclass(frozen=True, slots=True)
class Result:
    """How one check went.

    Attributes:
        check: its name, in words.
        missing: what is missing; empty when nothing is.
    """

    check: str
    missing: str


def name_of(check: Check) -> str:
    """A check's name, in words."""
    return check.__name__.replace("_", " ")


def run(subject: Subject) -> Iterator[Result]:
    """All checks, one after the other; one that fails does not keep the others from being run."""
    for check in CHECKS:
        try:
            check(subject)
        except AssertionError as error:
            missing = str(error) or "it does not hold"
        except Exception as error:  # of somebody else's integration or stand-in
            missing = f"it raised {type(error).__name__}: {error}"
        else:
            missing = ""
        yield Result(name_of(check), missing)
