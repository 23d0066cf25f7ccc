"""Traces cost nothing while they are off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.environment import ROOT


@pytest.mark.deep
def test_without_an_endpoint_the_application_imports_nothing_of_it() -> None:
    # redis-py imports API and SDK by itself where they are installed.
    loaded = "[name for name in sys.modules if name.startswith(('opentelemetry.exporter', 'opentelemetry.instr'))]"
    code = f"import sys, worker.app, worker.tasks.tokens; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
