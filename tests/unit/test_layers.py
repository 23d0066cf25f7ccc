"""What holds for the tree as a whole: no import circle, few modules at the root. More rules: `make lint`."""

from __future__ import annotations

import ast
import graphlib
import inspect
from pathlib import Path

import grimp
import pytest

from tests.support.environment import ROOT
from tests.support.tracing import untraced

LONGEST_MODULE = 350
LONGEST_FUNCTION = 60


@pytest.mark.deep
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


def _sources() -> list[Path]:
    return sorted(
        path
        for folder in ("worker", "schedules")
        for path in (ROOT / folder).rglob("*.py")
        if "versions" not in path.parts  # a migration that ran somewhere is never changed
    )


@untraced()
def too_long(path: Path) -> list[str]:
    """What of one file does not fit on a page: itself, or functions by name."""
    text = path.read_text()
    lines = len(text.splitlines())
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return [f"{path.relative_to(ROOT)} has {lines} lines"] * (lines > LONGEST_MODULE) + [
        f"{path.relative_to(ROOT)}: {name} has {length} lines"
        for name, length in lengths.items()
        if length > LONGEST_FUNCTION
    ]


@pytest.mark.deep
def test_modules_have_one_job_and_functions_fit_on_a_page() -> None:
    sources = _sources()

    assert len(sources) > 200
    assert [told for path in sources for told in too_long(path)] == []


def test_long_file_and_long_function_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "long.py").write_text("def f():\n" + "    x = 1\n" * 400)

    assert too_long(tmp_path / "long.py") == ["long.py has 401 lines", "long.py: f has 401 lines"]
