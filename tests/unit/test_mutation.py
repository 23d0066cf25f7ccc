"""What `make mutation` makes of a source, and when it fails."""

from __future__ import annotations

import pytest

from tests.mutation.__main__ import JUDGES
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.report import FLOOR, Change, Result, failures, read_accepted, survivors, table

SOURCE = """
class Waits:
    def longest(self, seconds: int | None, *, factor: "int | float" = 2) -> int | None:
        try:
            return 30 if seconds is None else seconds * factor
        except (errors.Late, ValueError):
            return None
"""
FILE = "worker/waits.py"


def _mutant(number: int, place: str = "longest") -> Mutant:
    return Mutant(line=number, place=place, before="a > b", after=f"a > {number}", source="")


@pytest.mark.deep
def test_mutants_change_one_thing_and_say_where() -> None:
    found = {mutant.after: mutant for mutant in mutants(SOURCE)}

    changed = found["return 31 if seconds is None else seconds * factor"]
    assert (changed.line, changed.place) == (5, "Waits.longest")
    assert changed.before == "return 30 if seconds is None else seconds * factor"
    assert "seconds + factor" in "".join(found)


@pytest.mark.deep
def test_annotations_and_the_mark_of_keyword_parameters_are_left_alone() -> None:
    heads = {mutant.after for mutant in mutants(SOURCE) if mutant.line == 3}

    assert heads == {
        'def longest(self, seconds: int | None, *, factor: "int | float" = 3) -> int | None:',
        'def longest(self, seconds: int | None, *, factor: "int | float" = 1) -> int | None:',
    }


@pytest.mark.deep
def test_each_caught_exception_is_left_uncaught_once_dotted_names_too() -> None:
    handlers = {mutant.after for mutant in mutants(SOURCE) if mutant.line == 6}

    assert handlers == {"except (NothingRaisesThis, ValueError):", "except (errors.Late, NothingRaisesThis):"}


@pytest.mark.deep
def test_no_mutant_is_made_twice_and_none_equals_the_source() -> None:
    sources = [mutant.source for mutant in mutants(SOURCE)]

    assert len(sources) == len(set(sources))
    assert SOURCE not in sources


def test_run_in_which_all_survivors_are_listed_passes() -> None:
    results = {FILE: Result(20, [_mutant(1)])}

    assert failures(results, {Change.of(FILE, _mutant(1)): "says the same"}) == []


@pytest.mark.parametrize(("left", "fails"), [(10, False), (11, True)])
def test_file_below_the_floor_fails_even_when_its_survivors_are_listed(left: int, fails: bool) -> None:
    alive = [_mutant(number) for number in range(left)]

    said = failures({FILE: Result(100, alive)}, {Change.of(FILE, mutant): "says the same" for mutant in alive})

    assert FLOOR == 90
    assert bool(said) is fails
    assert all(FILE in line and "89.0 %" in line for line in said)


def test_survivor_that_is_not_listed_fails_and_is_marked() -> None:
    results = {FILE: Result(20, [_mutant(1), _mutant(2)])}
    accepted = {Change.of(FILE, _mutant(1)): "says the same"}

    (said,) = failures(results, accepted)

    assert said.startswith("1 survivors are not listed")
    assert survivors(results, accepted).count("NOT LISTED") == 1
    assert f"{FILE}:2 longest" in survivors(results, accepted)


def test_entry_that_no_longer_survives_is_named() -> None:
    (said,) = failures({FILE: Result(20, [])}, {Change.of(FILE, _mutant(7)): "says the same"})

    assert "does not survive any more" in said
    assert "a > b  →  a > 7" in said


def test_entries_of_files_that_were_not_judged_are_not_asked_about() -> None:
    assert failures({FILE: Result(20, [])}, {Change.of("worker/other.py", _mutant(7)): "says the same"}) == []


def test_entry_without_a_reason_fails() -> None:
    (said,) = failures({FILE: Result(20, [_mutant(1)])}, {Change.of(FILE, _mutant(1)): " "})

    assert "without a reason" in said


def test_table_has_a_line_for_each_file_and_one_for_all() -> None:
    rows = [line.split() for line in table({FILE: Result(20, [_mutant(1)]), "b.py": Result(20, [])}).splitlines()]

    assert rows[1:] == [[FILE, "19", "20", "95.0"], ["b.py", "20", "20", "100.0"], ["together", "39", "40", "97.5"]]


def test_every_listed_survivor_names_a_file_that_is_judged() -> None:
    assert {change.file for change in read_accepted()} <= JUDGES.keys()
