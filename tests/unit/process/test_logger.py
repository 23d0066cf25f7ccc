from __future__ import annotations

import sys

import pytest
import structlog
from structlog.testing import capture_logs

from worker.process import logger


def test_structlog_is_configured_once_and_only_for_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(logger, "_prepare", None)
    with monkeypatch.context() as nothing_imported:
        nothing_imported.delitem(sys.modules, "structlog")
        logger.before_first_line(lambda: prepared.append(True))
    monkeypatch.setattr(structlog, "is_configured", lambda: bool(prepared))
    log = logger.Logger("worker.somewhere")
    assert prepared == []

    with capture_logs() as lines:
        log.info("happened", count=1)
        log.warning("happened_again")

    assert prepared == [True]
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("happened", "info"),
        ("happened_again", "warning"),
    ]


def test_structlog_that_is_imported_is_configured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(logger, "_prepare", None)

    logger.before_first_line(lambda: prepared.append(True))

    assert prepared == [True]


def test_what_was_configured_meanwhile_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(logger, "_prepare", lambda: prepared.append(True))
    monkeypatch.setattr(structlog, "is_configured", lambda: True)

    with capture_logs() as lines:
        logger.Logger("worker.somewhere").info("happened")

    assert (prepared, len(lines)) == ([], 1)
