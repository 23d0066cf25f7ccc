"""`dashtam integrations new` and `check`, which need neither a database nor settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Dashtam
from worker.integrations import registry
from worker.integrations.kit import contract
from worker.integrations.kit.contract import Subject
from worker.integrations.registry import Fault


def test_new_writes_a_package_and_says_where(dashtam: Dashtam, tmp_path: Path) -> None:
    done = dashtam("integrations", "new", "toy", "--in", str(tmp_path), "--json")

    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"provider_key": "toy", "folder": str(tmp_path / "dashtam-toy")}
    assert (tmp_path / "dashtam-toy" / "pyproject.toml").exists()


@pytest.mark.parametrize("key", ["schwab", "class", "1st", "two words"])
def test_new_refuses_a_key_that_cannot_be_used(dashtam: Dashtam, tmp_path: Path, key: str) -> None:
    done = dashtam("integrations", "new", key, "--in", str(tmp_path))

    assert done.exit_code == 2
    assert "nothing was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_of_an_integration_in_good_order_ends_well(dashtam: Dashtam) -> None:
    done = dashtam("integrations", "check", "plaid", "--json")

    assert done.exit_code == 0
    assert [result["missing"] for result in json.loads(done.stdout)] == [""] * len(contract.CHECKS)


def test_check_says_what_is_missing_and_fails(dashtam: Dashtam, monkeypatch: pytest.MonkeyPatch) -> None:
    def it_never_holds(subject: Subject) -> None:
        raise AssertionError("the moon must be full")

    monkeypatch.setattr(contract, "CHECKS", (it_never_holds,))

    done = dashtam("integrations", "check", "plaid")

    assert done.exit_code == 1
    assert "missing it never holds: the moon must be full" in done.stdout
    assert "1 of 1 checks found something missing" in done.stderr


def test_check_of_one_that_does_not_import_says_why(dashtam: Dashtam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "worker.integrations.registry.faults", lambda: (Fault("mine", "dashtam-mine", "it does not import"),)
    )

    done = dashtam("integrations", "check", "mine")

    assert done.exit_code == 1
    assert "mine of dashtam-mine cannot be used: it does not import" in done.stderr


def test_check_of_one_without_a_stand_in_says_so(dashtam: Dashtam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sandbox.stand_ins.find", lambda: {"plaid": "worker.integrations.nothing_here"})

    done = dashtam("integrations", "check", "plaid")

    assert done.exit_code == 1
    assert "it has no module stand_in beside it" in done.stderr


def test_check_of_an_unknown_one_is_wrong_usage(dashtam: Dashtam) -> None:
    assert set(registry.REGISTRY) >= {"plaid", "schwab"}

    assert dashtam("integrations", "check", "nowhere").exit_code == 2
