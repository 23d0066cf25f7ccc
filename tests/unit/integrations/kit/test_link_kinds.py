from __future__ import annotations

import io

import pytest

from worker.cli import link
from worker.cli.exits import UsageProblem
from worker.errors import Refused
from worker.integrations.kit.link_kinds import ALL, FILE, KEY_FILE

KEY = "-----BEGIN KEY-----\nbGluZSBvbmU=\nbGluZSB0d28=\n-----END KEY-----"


def test_kinds_have_names_of_their_own_and_fields_that_can_be_told_apart() -> None:
    assert len({kind.name for kind in ALL}) == len(ALL)
    assert all(len({field.name for field in kind.fields}) == len(kind.fields) for kind in ALL)


def test_key_file_keeps_its_lines_and_loses_the_space_around_them() -> None:
    assert KEY_FILE.checked({"key_id": " key-1 ", "key_file": f"\n{KEY}\n\n"}) == {"key_id": "key-1", "key_file": KEY}


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"key_id": "key-1", "key_file": " \n"}, "nothing was given as key file; nothing was linked"),
        ({}, "nothing was given as name of the key, key file; nothing was linked"),
        ({"key_id": "key-1", "key_file": KEY, "pin": "1"}, "the form has no field pin; it has key_id, key_file"),
    ],
)
def test_form_of_a_key_file_that_is_not_filled_in_is_refused(form: dict[str, str], says: str) -> None:
    with pytest.raises(Refused) as refused:
        KEY_FILE.checked(form)

    assert str(refused.value) == says


def test_data_in_files_asks_for_nothing_and_refuses_what_is_given_all_the_same() -> None:
    assert FILE.checked({}) == {}
    with pytest.raises(Refused, match="the form has no field key; it has none"):
        FILE.checked({"key": "k-1"})


def test_command_line_reads_the_name_from_one_line_and_the_key_from_all_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"key-1\n{KEY}\n"))

    assert link._filled_in(KEY_FILE) == {"key_id": "key-1", "key_file": KEY}


def test_command_line_says_that_the_key_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("key-1\n"))

    with pytest.raises(UsageProblem, match="nothing was given on standard input; nothing was linked"):
        link._filled_in(KEY_FILE)


def test_command_line_asks_nothing_where_data_comes_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())

    assert link._filled_in(FILE) == {}
