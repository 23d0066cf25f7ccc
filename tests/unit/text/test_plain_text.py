"""What others have written cannot steer a terminal, whichever way it is shown."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from worker.cli import output
from worker.cli.exits import complain
from worker.cli.output import SafeConsole
from worker.errors import Refused
from worker.models import ProviderCreate, new_id
from worker.services.linking.begin import checked
from worker.text.plain_text import HARMFUL, visible

HARM = "\x1b[2J\x1b]0;title\x07 \x9b31m \u202eevil\u202c \u2066x\u2069 \u200b \r\x00 \U000e0041"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ann's «broker» - äß 你好 \U0001f469\u200d\U0001f467", "Ann's «broker» - äß 你好 \U0001f469\u200d\U0001f467"),
        ("a\u200cb", "a\u200cb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\u202eb", r"a\u202eb"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\ud800", r"\ud800"),
    ],
)
def test_text_stays_as_it_is_but_for_what_harms(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_several_lines_may_stay_so() -> None:
    assert visible("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal would be sent, colours and all."""
    sent = io.StringIO()
    monkeypatch.setattr(output, "console", SafeConsole(file=sent, force_terminal=True, width=200, color_system=None))
    return sent


@pytest.mark.deep
@pytest.mark.parametrize(
    "show",
    [
        lambda: output.say(f"[green]linked[/] {output.plain(HARM)}"),
        lambda: output.say(HARM),
        lambda: output.show(HARM, as_json=False, render=lambda text: output.table(["alias"], [[text]], title=HARM)),
        lambda: output.show(HARM, as_json=False, render=lambda text: output.table([HARM], [[output.plain(text)]])),
        lambda: output.show(HARM, as_json=False, render=lambda text: output.pairs([("alias", text)])),
        lambda: output.show(HARM, as_json=False, render=lambda text: output.pairs([(text, 1)])),
    ],
)
def test_no_table_and_no_sentence_sends_a_terminal_what_steers_it(screen: io.StringIO, show: object) -> None:
    assert callable(show)
    show()

    assert HARMFUL.findall(screen.getvalue()) == []
    assert r"\u202eevil" in screen.getvalue()


def test_json_has_the_same_value_without_the_characters_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"alias": HARM})

    printed = capsys.readouterr().out
    assert HARMFUL.findall(printed) == []
    assert msgspec.json.decode(printed) == {"alias": HARM}


def test_errors_are_shown_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"no provider has the alias {HARM}")

    assert HARMFUL.findall(capsys.readouterr().err) == []


def test_every_console_of_the_command_line_is_such_a_one() -> None:
    from worker.cli import devstack, link

    assert {type(console) for console in (output.console, link._notes, devstack._notes)} == {SafeConsole}
    assert issubclass(SafeConsole, Console)


@pytest.mark.parametrize("alias", ["\x1b[31mred", "a\u202eb", "a\nb", "a\tb", "\u200b", "  "])
def test_alias_with_what_nobody_sees_is_refused(alias: str) -> None:
    with pytest.raises(Refused, match="alias"):
        checked(new_id(), "schwab", alias)


def test_alias_in_any_script_is_accepted() -> None:
    alias = "Ann's «broker» - 你好 \U0001f469\u200d\U0001f467"

    assert ProviderCreate(user_id=new_id(), provider_key="schwab", alias=alias).alias == alias
