"""Where everything of this machine is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def default_home(environ: Mapping[str, str] | None = None) -> Path:
    """DASHTAM_HOME if set; else `.dashtam` in the nearest project directory above, or in the current directory."""
    named = (os.environ if environ is None else environ).get("DASHTAM_HOME")
    if named:
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / ".dashtam").is_dir() or (directory / "pyproject.toml").is_file():
            return directory / ".dashtam"
    return here / ".dashtam"
