from __future__ import annotations

import io
from dataclasses import replace

import pytest

from worker.cli import link
from worker.cli.exits import UsageProblem
from worker.errors import Refused
from worker.integrations.kit.link_kinds import ALL, FILE, KEY_FILE, OAUTH, Choice, FormField

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


BANK = FormField("bank", "bank", chosen=True)
BANKS = [
    Choice('["FI","Nordea"]', "Nordea, FI"),
    Choice('["SE","Nordea"]', "Nordea, SE"),
    Choice('["FI","Nordea 2"]', "Nordea, FI, business"),
    Choice('["DE","Bank"]', "Zweite Bank, DE"),
]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ('["SE","Nordea"]', '["SE","Nordea"]'),
        ("Nordea, FI", '["FI","Nordea"]'),
        ("  nordea,  fi ", '["FI","Nordea"]'),
        ("business nordea", '["FI","Nordea 2"]'),
        ("zWEITE", '["DE","Bank"]'),
    ],
)
def test_choice_is_meant_by_its_value_its_label_or_words_that_only_it_has(given: str, value: str) -> None:
    assert BANK.pick(BANKS, given) == value


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nordea", "these words fit 3: Nordea, FI; Nordea, SE; Nordea, FI, business. Nothing was changed"),
        ("sampo", "no bank has these words in its name; nothing was changed. Give other words"),
        ("", "no bank has these words in its name"),
    ],
)
def test_words_that_do_not_fit_one_choice_are_refused_with_those_that_they_fit(given: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        BANK.pick(BANKS, given)

    assert says in str(refused.value)


def test_no_more_than_twenty_choices_are_named() -> None:
    with pytest.raises(Refused, match=r"these words fit 30: .*; and 10 more\. "):
        BANK.pick([Choice(str(number), f"Bank {number}") for number in range(30)], "bank")


def test_what_is_asked_before_a_consent_is_checked_like_a_form() -> None:
    kind = replace(OAUTH, asks=(BANK,))

    assert kind.asked({"bank": " Nordea "}) == {"bank": "Nordea"}
    with pytest.raises(Refused, match="nothing was given as bank; nothing was linked"):
        kind.asked({})
    with pytest.raises(Refused, match="the form has no field bank; it has none"):
        OAUTH.asked({"bank": "Nordea"})
