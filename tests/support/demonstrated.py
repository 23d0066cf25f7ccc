"""Runs printed commands in the world of a `make run`: fills in what a reader fills in, and has ready what they need."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import text

from tests.support.celery_fixtures import reconnect
from tests.support.command_line import command_line, fresh_runtime
from tests.support.demonstration import clean_environment, link_in_a_browser
from tests.support.printed_commands import words_of
from tests.support.waiting import wait_for
from tests.support.webhook_receiver import Receiver, webhook_receiver
from worker.cli.demo_logins import LOGINS, USER
from worker.models import new_id
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.sandbox.control import control_of
from worker.services.access import keys
from worker.services.linking import users
from worker.services.outbox import subscriptions
from worker.services.simplefin import accesses
from worker.settings import get_settings
from worker.tasks import send

READERS = ("ada@example.org", "demo@example.org", "you@example.org")
_PLAID = '--user demo@dashtam.localhost --alias "Plaid one"'
# What a text leaves open, and what a reader writes there. The order matters.
_FILLED_IN = (
    (r"link x --user x --alias (x|\"x\")", f"link plaid {_PLAID}"),
    (r"(integrations (?:resume|pause)) (x|KEY)$", r"\1 schwab"),
    (r"(integrations new) (KEY)$", r"\1 acme"),
    (r"runs show (x|0198c2f4-…)$", "runs show {run}"),
    (r"failures (\w+) (0198c2f4-…|0191e0c0)$", r"failures \1 {failure}"),
    (r"quarantine (\w+) 0198c2f4-…$", r"quarantine \1 {entry}"),
    (r"api-keys revoke \S+$", "api-keys revoke {key}"),
    (r"simplefin revoke \S+$", "simplefin revoke {access}"),
    (
        r"simplefin create --user ada@example.org --account \S+$",
        f"simplefin create --user {USER} --account {{account}}",
    ),
    (r"(liabilities --provider) \"My bank\"", r'\1 "Plaid one"'),
    (r"hooks add https://\S+", "hooks add {receiver}"),
    (r"hooks (\w+) (?:x|HOOK|0199a|01998a3e)(?= |$)", r"hooks \1 {hook}"),
    (r"sync 0198c2 ", "sync {login} "),
    (r"\"x\"", '"Plaid two"'),
    (r" (x|\{\})(?= |$)", " {login}"),
    (r"\bBrokerage\b", '"Schwab one"'),
)


def filled_in(line: str) -> str:
    """The line with what a reader writes in the places that a text leaves open; ids stand in braces."""
    for pattern, filled in _FILLED_IN:
        line = re.sub(pattern, filled, line)
    return line


class Demonstrated:
    """A `make run` in which the logins are not due, and the rows exist that commands are about."""

    def __init__(self, place: Path, files: Path, receiver: Receiver) -> None:
        self._place = place
        self._files = files
        self._receiver = receiver
        self._own = Runtime(get_settings())

    @classmethod
    @contextmanager
    def of(cls, place: Path, files: Path) -> Iterator[Demonstrated]:
        """The settings of this process are those of the `make run` in `place`, as long as the block lasts."""
        lines = (place / ".dashtam" / "run.env").read_text().splitlines()
        variables = dict(line.split("=", 1) for line in lines)
        broker_before = send.sender.conf["broker_url"]
        with ExitStack() as stack:
            stack.enter_context(
                patch.dict(os.environ, clean_environment() | variables | {"HOME": str(files)}, clear=True)
            )
            stack.callback(get_settings.cache_clear)
            get_settings.cache_clear()
            reconnect(send.sender, broker_url=variables["REDIS_URL"])
            stack.callback(reconnect, send.sender, broker_url=broker_before)
            (files / "src").mkdir()
            stack.callback(os.chdir, Path.cwd())
            os.chdir(files)
            world = cls(place, files, stack.enter_context(webhook_receiver()))
            stack.callback(world._own.close)
            for address in READERS:
                world._own.run(users.find_user(world._own, address, create=True))
            yield world
            world._restore()

    def run(self, line: str, *, given: str | None = None) -> tuple[int, str]:
        """Exit code and output of one printed line. In a line with signs for the shell, a shell runs it."""
        self._calm()
        command = filled_in(line).format_map(self._ids()) if "{" in filled_in(line) else filled_in(line)
        if words_of(command)[:2] in (["link", "schwab"], ["link", "snaptrade"]):
            return self._in_a_browser(command)
        # What an earlier command wrote would be kept, and this command refused.
        if written := re.search(r"--output (\S+)", command):
            shutil.rmtree(self._files / written[1], ignore_errors=True)
            (self._files / written[1]).unlink(missing_ok=True)
        if re.search(r" (?:[<>|]|&&) ?", command.partition("  #")[0]):
            done = subprocess.run(
                ["/usr/bin/env", "bash", "-o", "pipefail", "-c", command],
                env=self._shell(),
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, done.stdout + done.stderr
        with fresh_runtime(), command_line() as dashtam:
            result = dashtam(*words_of(command), stdin=given)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    def write(self, name: str, content: str) -> None:
        """A file that a line reads."""
        (self._files / name).write_text(content)

    def given_to_the_user(self, login: str) -> str:
        """What the user of a login of the sandbox gets from the institution, for linking."""
        (given,) = control_of(self._place / ".dashtam").link(login, {}).values()
        return given

    def _shell(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path}

    def _in_a_browser(self, command: str) -> tuple[int, str]:
        # A second consent at Schwab ends the first one. So only the second login lends itself to other aliases.
        ours = LOGINS[0 if LOGINS[0].alias in command else 1]
        login = ours.name if ours.provider_key in command else f"{words_of(command)[1]}-1"
        control = control_of(self._place / ".dashtam")
        return link_in_a_browser(command, self._shell(), lambda asked: control.link(login, asked)["callback_url"])

    def _execute(self, statement: str, **values: Any) -> int:
        """How many rows the statement is about."""
        with self._own.transaction() as session:
            return session.execute(text(statement), values).rowcount

    def _restore(self) -> None:
        """The four logins of the demonstration, linked and due, and no other."""
        again = LOGINS[1]
        self.run(f"dashtam link {again.provider_key} --user {USER} --alias '{again.alias}'")
        ours = [login.alias for login in LOGINS]
        self._execute("DELETE FROM providers WHERE alias <> ALL(:ours)", ours=ours)
        self._execute("UPDATE providers SET sync_due_at = now()")

    def _calm(self) -> None:
        """Nothing is due or running, and no sync was just now: else a command is refused, or waits for another's."""
        self._execute("UPDATE providers SET sync_due_at = now() + interval '2 hours'")
        wait_for(
            lambda: not self._execute("SELECT 1 FROM dashtam_v1.sync_runs WHERE status = 'running'"),
            what="the syncs of earlier commands to end",
        )
        self._execute("UPDATE sync_runs SET started_at = started_at - interval '1 minute'")

    def _ids(self) -> dict[str, str]:
        """Rows for commands that are about one: a failed task, a quarantined record, a key; and a login and a run."""
        failure, entry = new_id(), new_id()
        with self._own.transaction() as session:
            login = session.scalar(text("SELECT id FROM providers WHERE alias = 'Schwab one'"))
            account = session.scalar(text("SELECT id FROM accounts WHERE provider_id = :id LIMIT 1"), {"id": login})
            user = session.scalar(text("SELECT user_id FROM providers WHERE id = :id"), {"id": login})
            run = session.scalar(text("SELECT id FROM sync_runs WHERE finished_at IS NOT NULL LIMIT 1"))
            session.execute(
                text(
                    "INSERT INTO task_failures (id, task_id, task_name, arguments, reason, deliveries) VALUES"
                    " (:id, 'a-task', 'worker.tasks.upkeep.send_notices', '{\"args\": []}', 'made for a test', 3)"
                ),
                {"id": failure},
            )
            session.execute(
                text(
                    "INSERT INTO quarantine (id, provider_id, kind, reason, payload, fingerprint) VALUES"
                    " (:id, :login, 'transaction', 'made_for_a_test', '{}', :fingerprint)"
                ),
                {"id": entry, "login": login, "fingerprint": entry.bytes},
            )
        made = self._own.run(
            keys.create(
                self._own, name=f"at {datetime.now(UTC)}", scopes=(KeyScope.READ,), user_id=None, lifetime=None,
                actor="test",
            )
        )  # fmt: skip
        access = self._own.run(
            accesses.create(self._own, user_id=user, name="for a command", account_ids=(), actor="test")
        )
        hook = self._own.run(
            subscriptions.add(
                self._own, url=self._receiver.url, events=(), description="for a command", user_id=None, actor="test"
            )
        )
        return {
            "hook": str(hook.row.id), "receiver": self._receiver.url,
            "account": str(account), "access": shlex.quote(access.row.prefix),
            "login": str(login), "run": str(run), "failure": str(failure), "entry": str(entry),
            "key": shlex.quote(made.row.prefix),
        }  # fmt: skip
