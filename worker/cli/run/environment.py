"""The files that `dashtam run` keeps in its home, and the environment that it gives to every process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from worker.cli.demo_logins import USER
from worker.cli.home import ENV_FILE, write_environment, write_private
from worker.devstack import Urls
from worker.devstack.processes import free_port, port_is_free
from worker.integrations.registry import REGISTRY
from worker.sandbox.control import access_file, access_text
from worker.sandbox.core import Profile
from worker.sandbox.stand_ins import stand_ins, variables
from worker.settings import get_settings

_KEYS_FILE = "encryption.keys"
_FLOWER_FILE = "flower.password"
_FLOWER_PORT = 5555
_WEB_PORT = 8000
_API_KEY_FILE = "api.key"


@dataclass(frozen=True)
class Demonstration:
    """The addresses and files of one `dashtam run`.

    Attributes:
        variables: environment of every process; it contains passwords, so it is never printed.
        env_file: a file (mode 0600) with the same variables, for commands in another terminal.
        web_url: the address of the HTTP API.
        api_key_file: the file with an operator's key for the HTTP API.
    """

    home: Path
    sandbox_url: str
    sandbox_token: str
    flower_url: str
    flower_user: str
    flower_password_file: Path
    variables: Mapping[str, str]
    env_file: Path
    web_url: str
    api_key_file: Path

    @property
    def flower_password(self) -> str:
        """Flower's password; it is made once for each home."""
        return self.flower_password_file.read_text().strip()

    @property
    def login_url(self) -> str:
        """The address of the status page that logs a browser in by itself; without a key until there is one.

        The key follows the #, so the browser sends it to no server; the login page takes it from there.
        """
        key = self.api_key_file.read_text().strip() if self.api_key_file.exists() else ""
        return f"{self.web_url}/login#{key}" if key else f"{self.web_url}/status"


def prepare(home: Path, urls: Urls, *, access_seconds: int, once: bool) -> Demonstration:
    """Chooses ports, keys and passwords, and also puts them into the environment of this process."""
    sandbox_port, flower_port, web_port = free_port(), _port("FLOWER_PORT", _FLOWER_PORT), _port("WEB_PORT", _WEB_PORT)
    sandbox_token = secrets.token_urlsafe(16)
    flower_password = _kept(home / _FLOWER_FILE, lambda: secrets.token_urlsafe(12))
    sandbox_url, web_url = f"http://127.0.0.1:{sandbox_port}", f"http://127.0.0.1:{web_port}"
    env_file = home / ENV_FILE
    variables = {
        "DASHTAM_ENV": "development",
        "DASHTAM_HOME": str(home),
        # A demonstration must use nothing from the user's own .env: no real provider, no real e-mail.
        "DASHTAM_ENV_FILE": str(env_file),
        "DATABASE_URL": urls.database_url,
        "REDIS_URL": urls.redis_url,
        **({} if _has_keys() else {"ENCRYPTION_KEYS_FILE": str(keys_file(home))}),
        "INTEGRATIONS": ",".join((*sandboxed(), *(key for key, one in REGISTRY.items() if one.reads_files))),
        **_credentials(home, sandbox_url, web_url),
        "DASHTAM_SANDBOX_ADMIN_TOKEN": sandbox_token,
        "FLOWER_PASSWORD_FILE": str(flower_password),
        "FLOWER_PORT": str(flower_port),
        "WEB_PORT": str(web_port),
        "WEB_PUBLIC_URL": f"http://127.0.0.1:{web_port}",  # where the sandbox sends its hooks
        "WEB_LOGIN_LINKS": "1",
        "DEMONSTRATION_USER": USER,
        "LINK_RETURN_ORIGINS": _origins(web_url),
        "OUTBOX_NETWORKS": "127.0.0.0/8,::1/128",  # so that a receiver on this machine can be tried
        "NOTICE_CHANNELS": "log",
        **_pace(access_seconds, once=once),
    }
    write_environment(home, variables)
    write_private(access_file(home), access_text(sandbox_url, sandbox_token))
    for name in variables:  # a secret must not be set in both ways
        os.environ.pop(f"{name}_FILE", None)
        os.environ.pop(name.removesuffix("_FILE"), None)
    os.environ.update(variables)
    get_settings.cache_clear()
    return Demonstration(
        home=home,
        sandbox_url=sandbox_url,
        sandbox_token=sandbox_token,
        flower_url=f"http://127.0.0.1:{flower_port}",
        flower_user=os.environ.get("FLOWER_USER", "operator"),
        flower_password_file=flower_password,
        variables=variables,
        env_file=env_file,
        web_url=web_url,
        api_key_file=home / _API_KEY_FILE,
    )


def sandboxed() -> dict[str, type[Profile]]:
    """The integrations that the sandbox stands in for, by key, with their stand-ins."""
    usable, _ = stand_ins()
    return {key: profile for key, profile in usable.items() if key in REGISTRY}


def keys_file(home: Path) -> Path:
    """The file with the home's own encryption keys; they are made once."""
    return _kept(home / _KEYS_FILE, lambda: f"k1:{Fernet.generate_key().decode()}")


def _credentials(home: Path, sandbox_url: str, web_url: str) -> dict[str, str]:
    """The variables that make the integrations use their stand-ins; their credentials are valid only there.

    A browser that has consented comes back to our own page. A key of several lines is put into a file, because a line
    of `run.env` holds one variable.
    """
    made: dict[str, str] = {}
    for key, profile in sandboxed().items():
        given = variables(profile, sandbox_url)
        callbacks = {name: f"{web_url}/oauth/{key}/callback" for name in given if name.endswith("_REDIRECT_URI")}
        made |= given | callbacks
    for name in [name for name, value in made.items() if "\n" in value]:
        path = home / name.lower()
        write_private(path, made.pop(name))
        made[f"{name}_FILE"] = str(path)
    return made


def _pace(access_seconds: int, *, once: bool) -> dict[str, str]:
    """Shorter times than in production: for ticks, and until lost work is taken over."""
    return {
        "TICK_SCALE": "0.05" if once else "0.1",
        "SYNC_INTERVAL": "30",
        "SYNC_INTERVAL_HOOKED": "60",
        "SYNC_MIN_INTERVAL": "2",
        # The sandbox's books change all the time, and people sync by hand: real budgets would be used up.
        "QUOTA_SCALE": "10",
        "CLAIM_SECONDS": "8",
        "HTTP_TOTAL_SECONDS": "6",
        "LEASE_SECONDS": str(max(8, min(20, access_seconds))),
        "RUN_DEAD_SECONDS": "8",
        "DATABASE_CONNECT_SECONDS": "3",
        "DATABASE_LOCK_SECONDS": "4",
        "DATABASE_STATEMENT_SECONDS": "6",
        "DATABASE_STEP_SECONDS": "7",
        "VISIBILITY_TIMEOUT": "20",
        "TASK_TIME_LIMIT": "15",
        "TASK_SOFT_TIME_LIMIT": "12",
        "SYNC_BUDGET_SECONDS": "8",
        "SOFT_SHUTDOWN_SECONDS": "3",
    }


def _origins(web_url: str) -> str:
    """Where browsers may go back to after a link: the demonstration, and apps that the environment names."""
    named = os.environ.get("LINK_RETURN_ORIGINS", "").split(",")
    return ",".join(dict.fromkeys(origin for origin in (web_url, *named) if origin))


def _has_keys() -> bool:
    return bool(os.environ.get("ENCRYPTION_KEYS") or os.environ.get("ENCRYPTION_KEYS_FILE"))


def _kept(path: Path, make: Callable[[], str]) -> Path:
    if not path.exists():
        write_private(path, f"{make()}\n")
    return path


def _port(variable: str, usual: int) -> int:
    wanted = int(os.environ.get(variable) or usual)
    return wanted if port_is_free(wanted) else free_port()
