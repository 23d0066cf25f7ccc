"""What all tests share. Fixtures by topic are in `tests/support`; docs/testing.md says which to use for what."""

from __future__ import annotations

import atexit
import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test
from hypothesis import settings as hypothesis_settings

from tests.support.environment import isolate

# pytest's heap is large and stays: looking through it again and again was a quarter of a session's time.
gc.set_threshold(100_000, 50, 50)

_HOME = Path(tempfile.mkdtemp(prefix="dashtam-test-home-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
isolate(_HOME)  # before anything reads the settings

pytest_plugins = ("tests.support.fixtures", "tests.support.celery_fixtures")

# Random order and machine speed must not decide a test's result.
hypothesis_settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
hypothesis_settings.load_profile("tests")

_KINDS = ("unit", "integration", "smoke", "deep", "faults")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Marks tests, groups those that share the session's worker, and puts the long ones first.

    The marks: a test's directory, and `deep` for a property, which tries many examples, and for what `release` runs.
    """
    root = Path(__file__).parent
    for item in items:
        kind = item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
        if kind in _KINDS:
            item.add_marker(kind)
        tries_many = isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)
        if tries_many or item.get_closest_marker("release"):
            item.add_marker("deep")
        if "session_worker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("session worker"))  # which takes seconds to start
    yield  # tests are selected by their marks, and the order is made random
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names long values by their length: a test's name belongs on one line."""
    return f"{argname}-of-{len(val)}" if isinstance(val, str | bytes) and len(val) > 60 else None
