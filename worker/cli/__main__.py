"""`python -m worker.cli`: the same as `dashtam`."""

from __future__ import annotations

from worker.cli import main

main()
