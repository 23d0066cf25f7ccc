"""Every line passes the same processors, whoever wrote it."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from worker.settings import Settings, get_settings
from worker.telemetry.log import configure_logging, log_uncaught
from worker.text.plain_text import HARMFUL


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LOG_FORMAT", "json")
    return get_settings()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_our_lines_and_those_of_libraries_have_the_same_form(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings)

    structlog.get_logger("ours").info("synced", rows=3)
    logging.getLogger("theirs").warning("took %s s", 3)

    ours, theirs = lines(capsys)
    assert (ours["event"], ours["rows"], ours["logger"], ours["level"]) == ("synced", 3, "ours", "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("took 3 s", "theirs", "warning")
    assert str(ours["timestamp"]).endswith("Z")


def test_context_is_on_every_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings)

    with structlog.contextvars.bound_contextvars(task_id="t1", provider_id="p1", run_id="r1", attempt=2):
        structlog.get_logger().info("a")
        logging.getLogger("sqlalchemy").warning("b")

    for line in lines(capsys):
        assert (line["task_id"], line["provider_id"], line["run_id"], line["attempt"]) == ("t1", "p1", "r1", 2)


def test_celery_s_own_lines_name_their_task(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings)

    logging.getLogger("celery.worker.strategy").info(
        "Task %(name)s[%(id)s] received",
        {"name": "worker.tasks.tokens.refresh_due", "id": "t9"},
        extra={"data": {"name": "worker.tasks.tokens.refresh_due", "id": "t9"}},
    )

    (line,) = lines(capsys)
    assert (line["task_id"], line["task"]) == ("t9", "worker.tasks.tokens.refresh_due")


@pytest.mark.deep
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_leave_messages_arguments_and_tracebacks(
    log_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_FORMAT", log_format)
    configure_logging(get_settings())
    local_secret = "local-swordfish"

    try:
        raise ValueError(f"refused access_token=swordfish-{len(local_secret)}")
    except ValueError:
        structlog.get_logger().exception("failed", refresh_token="swordfish", detail={"password": "swordfish"})
        logging.getLogger("theirs").exception("Authorization: Bearer %s", "swordfish1")

    written = capsys.readouterr().err
    assert "swordfish" not in written.replace('"local-swordfish"', "").replace("access_token=swordfish-{len(", "")
    assert "ValueError: refused access_token=***" in written
    assert "test_secrets_leave_messages" in written


@pytest.mark.deep
def test_configured_secret_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWER_PASSWORD", "only-for-this-test")
    monkeypatch.setenv("REDIS_URL", "redis://:also%20for-this@127.0.0.1:1/0")
    configure_logging(get_settings())

    structlog.get_logger().info("said only-for-this-test and also for-this to redis://127.0.0.1:1/0")

    written = capsys.readouterr().err
    assert "only-for-this-test" not in written
    assert "also for-this" not in written
    assert "redis://127.0.0.1:1/0" in written


def test_line_that_cannot_be_formatted_shows_no_arguments(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings)

    logging.getLogger("theirs").warning("%d items", "swordfish")

    written = capsys.readouterr().err
    assert "swordfish" not in written
    assert "was lost: TypeError" in written


def test_uncaught_error_is_logged_without_its_secret(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings)
    assert sys.excepthook is log_uncaught

    error = RuntimeError("token=swordfish")
    sys.excepthook(RuntimeError, error, None)

    (line,) = lines(capsys)
    assert line["event"] == "uncaught_error"
    assert "RuntimeError: token=***" in str(line["exception"])


def test_warnings_are_log_lines(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old: password=swordfish", DeprecationWarning, stacklevel=1)

    (line,) = lines(capsys)
    assert line["logger"] == "py.warnings"
    assert "password=***" in str(line["event"])


def test_what_others_wrote_cannot_steer_the_terminal_that_shows_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "console")
    configure_logging(get_settings())

    logging.getLogger("x").warning("said \x1b[2J%s", "\u202eevil")
    structlog.get_logger("y").warning("answered", reason="\x1b]0;title\x07", nested={"reason": "\x9b31m"})
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        structlog.get_logger("z").exception("broke")

    written = capsys.readouterr().err
    assert HARMFUL.findall(written) == []
    assert r"\u202eevil" in written
    assert len(written.splitlines()) > 3, "a traceback keeps its lines"
