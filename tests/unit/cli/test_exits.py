from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from worker.cli.exits import CommandGroup, ExitCode, Failed, Interrupted, UsageProblem, exit_code
from worker.devstack import DevstackError
from worker.errors import (
    BadEntry,
    BadPayload,
    BadRequest,
    ConfigurationError,
    DashtamError,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    ReauthRequired,
    Refused,
    Unavailable,
)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageProblem("x"), 2),
        (NotFound("x"), 2),
        (Refused("x"), 3),
        (ReauthRequired("x"), 3),
        (Unavailable("x"), 4),
        (RateLimited("x"), 4),
        (OutcomeUnknown("x"), 4),
        (ConfigurationError("x"), 5),
        (DevstackError("x"), 5),
        (Interrupted("x"), 130),
        (Failed("x"), 1),
        (BadPayload("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: DashtamError, code: int) -> None:
    assert exit_code(error) == code


def _command(raising: BaseException) -> typer.Typer:
    app = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)

    @app.callback()
    def _group() -> None: ...

    @app.command()
    def go() -> None:
        raise raising

    return app


def test_an_error_of_ours_is_one_line_on_standard_error() -> None:
    result = CliRunner().invoke(_command(Refused("not now [bold]")), ["go"])

    assert result.exit_code == ExitCode.REFUSED
    assert result.stdout == ""
    assert result.stderr == "error: not now [bold]\n"


def test_a_refusal_ends_with_what_an_operator_can_do() -> None:
    refused = Refused("not now", for_operators="run: dashtam status", for_clients="wait")

    result = CliRunner().invoke(_command(refused), ["go"])

    assert result.stderr == "error: not now; run: dashtam status\n"


def test_a_sentence_about_what_was_entered_is_shown_without_the_word_that_is_stored_for_it() -> None:
    sentence = BadEntry("setup_token_unreadable", says="this is no setup token: copy all of it; nothing was sent")
    code = BadRequest("INVALID_FIELD")

    shown, stated = (CliRunner().invoke(_command(error), ["go"]) for error in (sentence, code))

    assert shown.stderr == "error: this is no setup token: copy all of it; nothing was sent\n"
    assert stated.stderr == "error: bad_request (INVALID_FIELD)\n"
    assert (shown.exit_code, stated.exit_code) == (ExitCode.USAGE, ExitCode.FAILED)


def test_ctrl_c_ends_without_a_traceback() -> None:
    result = CliRunner().invoke(_command(KeyboardInterrupt()), ["go"])

    assert result.exit_code == ExitCode.INTERRUPTED
    assert "Traceback" not in result.output


def test_a_fault_of_ours_is_not_hidden() -> None:
    result = CliRunner().invoke(_command(ZeroDivisionError()), ["go"])

    assert isinstance(result.exception, ZeroDivisionError)
