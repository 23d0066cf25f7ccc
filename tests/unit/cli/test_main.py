from __future__ import annotations

import sys

import pytest

from worker import cli, runtime


def test_what_a_command_has_opened_is_closed_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(runtime, "close_runtime", lambda: closed.append("runtime"))
    monkeypatch.setattr(sys, "argv", ["dashtam", "--version"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    assert closed == ["runtime"]
