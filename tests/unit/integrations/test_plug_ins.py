"""Integrations of other packages: what is wrong with one keeps nobody else from starting, and is told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import signals

from worker import app
from worker.errors import ConfigurationError
from worker.integrations import registry
from worker.integrations.registry import REGISTRY, build_integrations, faults, package_of, require
from worker.services import health
from worker.services.fleet import looking
from worker.settings import Settings, load
from worker.telemetry import metric_files

WHOLE = """
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.settings import IntegrationSettings
from worker.integrations.kit.link_kinds import SETUP_TOKEN

class Mine(Integration):
    key = "mine"
    name = "Mine"
    link_kind = SETUP_TOKEN
    settings_class = IntegrationSettings

    async def exchange(self, caller, form, *, now):
        raise NotImplementedError

    async def pages(self, request):
        yield
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution with one module and one entry point, as pip would leave it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def install(text: str, *, key: str = "mine", name: str = "dashtam-mine", value: str = "") -> None:
        module = name.replace("-", "_")
        made.append(module)
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dashtam.integrations]\n{key} = {value or module + ':Mine'}\n")
        registry.forget_found()

    yield install
    monkeypatch.undo()
    for module in made:
        sys.modules.pop(module, None)
    registry.forget_found()


BUILT_IN = {"plaid", "schwab"}


def test_folders_of_ours_are_found_and_named() -> None:
    assert set(REGISTRY) >= BUILT_IN
    assert {package_of(key) for key in BUILT_IN} == {"dashtam-worker"}


def test_class_of_another_package_is_found_by_its_entry_point(install: Install) -> None:
    install(WHOLE)

    assert set(REGISTRY) >= {*BUILT_IN, "mine"}
    assert (package_of("mine"), REGISTRY["mine"].name, faults()) == ("dashtam-mine", "Mine", ())
    assert list(require(["mine", "schwab"])) == ["mine", "schwab"]


BROKEN = [
    (
        "import nowhere_to_be_found",
        {},
        "it does not import: ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    ),
    ("raise SystemExit('password=hunter2')", {}, "it does not import: SystemExit: password=***"),
    ("def Mine(:", {}, "it does not import: SyntaxError: "),
    ("Mine = object()", {}, "it names no class derived from worker.integrations.kit.integration.Integration"),
    ("", {}, "it does not import: AttributeError: "),
    (WHOLE.replace("async def pages", "async def papers"), {}, "Mine lacks pages"),
    (WHOLE.replace("async def exchange", "async def change"), {}, "Mine lacks exchange"),
    (WHOLE.replace("    name =", "    title ="), {}, "Mine lacks name"),
    (WHOLE.replace("link_kind = SETUP_TOKEN", "link_kind = 'token'"), {}, "the link_kind of Mine is none of "),
    (WHOLE, {"key": "other"}, "Mine has the key 'mine' and is registered as 'other'"),
    (WHOLE.replace('key = "mine"', 'key = "plaid"'), {"key": "plaid"}, "the key plaid is taken by dashtam-worker"),
]


@pytest.mark.deep
@pytest.mark.parametrize(("text", "more", "reason"), BROKEN, ids=[reason for _, _, reason in BROKEN])
def test_one_that_cannot_be_used_stays_out_and_says_why(
    install: Install, text: str, more: dict[str, str], reason: str
) -> None:
    install(text, **more)

    (fault,) = faults()

    assert fault.package == "dashtam-mine"
    assert fault.reason.startswith(reason)
    assert set(REGISTRY) >= BUILT_IN
    assert "mine" not in REGISTRY
    assert package_of("plaid") == "dashtam-worker"


def test_of_two_packages_with_one_key_the_first_by_name_has_it(install: Install) -> None:
    install(WHOLE)
    install(WHOLE, name="another-mine")

    assert package_of("mine") == "another-mine"
    assert [(fault.package, fault.reason) for fault in faults()] == [
        ("dashtam-mine", "the key mine is taken by another-mine")
    ]


@pytest.mark.deep
def test_broken_one_that_is_enabled_refuses_startup_naming_its_package(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("import nowhere_to_be_found")
    monkeypatch.setenv("PLAID_CLIENT_ID", "client")
    monkeypatch.setenv("PLAID_SECRET", "SECRETWORD")
    settings = load(Settings)

    assert list(build_integrations(["plaid"], settings)) == ["plaid"]
    with pytest.raises(
        ConfigurationError, match=r"INTEGRATIONS: mine cannot be used: dashtam-mine: it does not import"
    ):
        build_integrations(["plaid", "mine"], settings)


def test_worker_does_not_start_to_serve_one_that_cannot_be_used(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("import nowhere")
    monkeypatch.setattr(app, "get_settings", lambda: SimpleNamespace(enabled_integrations=("mine",)))
    monkeypatch.setattr(metric_files, "share_with_exporter", lambda _: None)

    with pytest.raises(SystemExit) as ended:
        signals.worker_init.send(sender="worker")

    assert ended.value.code == ConfigurationError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("error: INTEGRATIONS: mine cannot be used: dashtam-mine: it does not import")
    assert said.endswith("Repair or update that package, or take mine out of INTEGRATIONS\n")


@pytest.mark.deep
def test_doctor_and_list_say_which_package_and_why(install: Install) -> None:
    install("import nowhere")

    finding = asyncio.run(health._plug_ins(cast("Any", None), cast("Any", None)))
    (row,) = looking.unusable()

    assert (finding.ok, row.package) == (False, "dashtam-mine")
    assert finding.found == f"mine of dashtam-mine: {row.unusable}"
    assert str(row.unusable).startswith("it does not import: ModuleNotFoundError")
