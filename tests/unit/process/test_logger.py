from __future__ import annotations

import sys

import pytest
from structlog.testing import capture_logs

from worker.process import logger


def test_structlog_is_configured_once_and_only_for_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(logger, "_prepare", None)
    with monkeypatch.context() as nothing_imported:
        nothing_imported.delitem(sys.modules, "structlog")
        logger.before_first_line(lambda: prepared.append(True))
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
