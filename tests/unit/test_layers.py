"""What holds for the tree as a whole: no import circle, few modules at the root. More rules: `make lint`."""

from __future__ import annotations

import ast
import graphlib
import inspect
from pathlib import Path

import grimp
import pytest

from tests.support.environment import ROOT

LONGEST_MODULE = 350
LONGEST_FUNCTION = 60


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = grimp.build_graph("worker", "schedules", exclude_type_checking_imports=False)
    needs = {module: imports.find_modules_directly_imported_by(module) for module in imports.modules}

    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


def test_circle_of_imports_is_noticed() -> None:
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_root_of_the_worker_holds_little() -> None:
    assert len(list((ROOT / "worker").glob("*.py"))) <= 8


def test_unit_tests_do_not_sleep() -> None:
    call = "time." + "sleep("

    assert [path.name for path in (ROOT / "tests" / "unit").rglob("test_*.py") if call in path.read_text()] == []


def test_what_the_first_documents_import_is_still_there() -> None:
    from worker import crud
    from worker.models import Provider, ProviderCreate
    from worker.services.encryption import EncryptionService

    assert Provider.__tablename__ == "providers"
    assert {"user_id", "provider_key", "alias"} <= ProviderCreate.model_fields.keys()
    assert list(inspect.signature(crud.create_provider).parameters) == ["session", "provider_in"]
    assert callable(EncryptionService.encrypt)
    assert callable(EncryptionService.decrypt)


SOURCES = sorted(
    path
    for folder in ("worker", "schedules")
    for path in (ROOT / folder).rglob("*.py")
    if "versions" not in path.parts  # a migration that ran somewhere is never changed
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_one_job_and_functions_fit_on_a_page(path: Path) -> None:
    text = path.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}

    assert len(text.splitlines()) <= LONGEST_MODULE
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
