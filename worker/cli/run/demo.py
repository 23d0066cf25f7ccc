"""The demo user's providers: links them to the sandbox with the real linking code, and reads what happened to them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from worker.cli.ask import operator
from worker.cli.demo_logins import LOGINS, USER, Login
from worker.cli.home import write_private
from worker.cli.run.sandbox import Progress
from worker.errors import NotAuthenticated
from worker.models.fleet import ProviderRow, Run, Stored
from worker.models.vocabulary import AttemptStatus, KeyScope, RunStatus, Trigger
from worker.runtime import Runtime
from worker.sandbox.control import SandboxControl
from worker.services.access import keys
from worker.services.fleet import details
from worker.services.linking import begin, complete, users

NONE = Stored()


@dataclass(slots=True)
class Story:
    """What has happened to one provider since the demonstration began.

    Attributes:
        refreshable: whether its integration refreshes tokens at all.
        refreshed: number of scheduled refreshes that stored a token.
        runs: finished scheduled sync runs, newest first.
        stored: numbers of rows in the tables.
        served: numbers of rows that the sandbox has sent since its start.
        books: numbers of rows in the sandbox's books when the login was linked.
    """

    login: Login
    provider: ProviderRow
    refreshable: bool
    refreshed: int = 0
    runs: list[Run] = field(default_factory=list)
    stored: Stored = NONE
    served: Stored = NONE
    books: Stored = NONE

    def missing(self) -> list[str]:
        """Sentences about the parts of a whole cycle that have not happened."""
        wants = []
        if self.provider.status != "active":
            reason = f" ({self.provider.status_reason})" if self.provider.status_reason else ""
            wants.append(f"it is {self.provider.status}{reason}")
        if self.refreshable and not self.refreshed:
            wants.append("no scheduled task has refreshed its token")
        if not self.runs:
            wants.append("no scheduled task has synced it")
        elif self.runs[0].status != RunStatus.COMPLETED:
            wants.append(f"its last sync is {self.runs[0].status} ({self.runs[0].error_reason or 'see its problems'})")
        return wants


def keep_api_key(runtime: Runtime, path: Path) -> None:
    """Puts an operator's key of the HTTP API into this file; a key that is there and still valid is kept."""
    with suppress(OSError, NotAuthenticated):
        runtime.run(keys.authenticate(runtime, path.read_text().strip()))
        return
    made = keys.create(
        runtime, name="dashtam run", scopes=tuple(KeyScope), user_id=None, lifetime=None, actor=operator()
    )
    write_private(path, f"{runtime.run(made).key}\n")


class Demo:
    """The demo user's providers.

    Args:
        runtime: this process's runtime.
        sandbox: the client for the running sandbox's admin API.
        progress: how many steps the sandbox's books had made when it last ran.
    """

    def __init__(self, runtime: Runtime, sandbox: SandboxControl, progress: Progress) -> None:
        self._runtime = runtime
        self._sandbox = sandbox
        self._progress = progress
        self.began_at = datetime.now(UTC)
        self.ids: dict[str, UUID] = {}
        self._books: dict[str, Stored] = {}

    def link(self) -> None:
        """Repeats the steps that the books had made, and links every login again: a new sandbox has no grants.

        Raises:
            ProviderError: the sandbox refused a login.
        """
        self._sandbox.advance(self._progress.steps)
        runtime = self._runtime
        if self._progress.is_of_another_day:
            # The sandbox has new books, so the demonstration starts again, too.
            runtime.run(users.forget_user(runtime, USER))
        user_id = runtime.run(users.find_user(runtime, USER, create=True))
        for login in LOGINS:
            self.ids[login.name] = self._link(login, user_id)
            # Read before the first sync, because a new Item hides history that the client does not ask for any more.
            self._books[login.name] = Stored(**self._sandbox.books(login.name))
        self.keep_progress()

    def _link(self, login: Login, user_id: UUID) -> UUID:
        runtime, key = self._runtime, login.provider_key
        if not runtime.integrations[key].link_kind.redirects:
            form = self._sandbox.link(login.name, {})
            return runtime.run(complete.link_with_form(runtime, key, user_id, login.alias, form))
        begun = runtime.run(begin.begin_link(runtime, key, user_id, login.alias))
        form = self._sandbox.link(login.name, dict(parse_qsl(urlsplit(begun.url).query)))
        return runtime.run(complete.complete_link(runtime, form["callback_url"], holder=begun.holder))

    def keep_progress(self) -> None:
        """Saves how many steps the books have made."""
        self._progress.save(self._sandbox.steps())

    @property
    def is_linked(self) -> bool:
        """Whether every login was linked."""
        return len(self.ids) == len(LOGINS)

    def stories(self, *, counts: bool, runtime: Runtime | None = None) -> list[Story]:
        """What has happened to every provider so far.

        Args:
            counts: whether to count rows in the tables and in the sandbox, too.
            runtime: the runtime of the calling thread, if that is not the main thread.

        Raises:
            Unavailable: Postgres cannot be reached.
        """
        asked = runtime or self._runtime
        ids = list(self.ids.values())
        happened = asked.run(details.happened_since(asked, ids, self.began_at))
        rows, stored = happened["providers"], happened["stored"]
        attempts, runs = happened["attempts"], happened["runs"]
        stories = []
        for login in LOGINS:
            id_ = self.ids[login.name]
            integration = self._runtime.integrations[login.provider_key]
            story = Story(login, rows[id_], integration.refresh_policy is not None, stored=stored[id_])
            story.refreshed = sum(
                a.provider_id == id_ and a.trigger == Trigger.SCHEDULE and a.status == AttemptStatus.DONE
                for a in attempts
            )
            story.runs = [
                run
                for run in runs
                if run.provider_id == id_ and run.trigger == Trigger.SCHEDULE and run.status != RunStatus.RUNNING
            ]
            stories.append(story)
        if counts:
            self._count(stories)
        return stories

    def _count(self, stories: list[Story]) -> None:
        served = self._sandbox.served()
        for story in stories:
            told = served.get(story.login.name, {})
            story.served = Stored(*(told.get(noun, 0) for noun in Stored.__slots__))
            story.books = self._books[story.login.name]
