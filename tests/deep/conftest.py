"""Fixtures that several deep tests share."""

from __future__ import annotations

import os

import pytest

from tests.support.wheel import EXTRAS, install


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PATH and PYTHONPATH of a shell in which the wheel with its extras is installed, and this tree is not."""
    directory = tmp_path_factory.mktemp("wheel")
    programs = install(directory)
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(directory / EXTRAS)}
