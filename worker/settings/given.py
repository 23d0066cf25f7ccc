"""Whether a variable is set, in any of the places from which settings are read."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

from worker.settings.secret_files import CREDENTIALS_DIR


def is_given(variable: str) -> bool:
    """Whether the environment, the `.env` file or a file in `CREDENTIALS_DIR` gives the variable, or names its file."""
    names = (variable, f"{variable}_FILE")
    if any(os.environ.get(name) for name in names):
        return True
    written = dotenv_values(os.environ.get("DASHTAM_ENV_FILE", ".env"))
    if any(written.get(name) for name in names):
        return True
    directory = os.environ.get(CREDENTIALS_DIR)
    kept = Path(directory or "", variable.lower())
    return bool(directory) and kept.is_file() and kept.stat().st_size > 0
