"""Unit tests: tasks run eagerly in this process, and no test opens a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_socket

from worker.settings import get_settings


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    pytest_socket.disable_socket(allow_unix_socket=True)  # asyncio wakes its loop through a socket pair
    yield
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """No test sees settings that another one has made the process cache."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def eager_app() -> Iterator[object]:
    """The Celery application with tasks run where they are sent, errors raised."""
    from worker.app import app
    from worker.runtime import close_runtime

    before = app.conf.task_always_eager, app.conf.task_eager_propagates
    app.conf.task_always_eager = app.conf.task_eager_propagates = True
    yield app
    app.conf.task_always_eager, app.conf.task_eager_propagates = before
    close_runtime()  # a task makes one
