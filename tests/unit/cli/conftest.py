from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.command_line import Dashtam, command_line
from worker.runtime import close_runtime


@pytest.fixture
def dashtam() -> Iterator[Dashtam]:
    """Runs a command in this process."""
    with command_line() as run:
        yield run
    close_runtime()
