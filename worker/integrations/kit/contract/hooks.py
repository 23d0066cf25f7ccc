"""Checks of an integration that receives hooks. One without `hooks` passes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from structlog.testing import capture_logs

from worker.errors import HookRefused
from worker.integrations.kit.contract.subject import Subject, Trial, require
from worker.integrations.kit.hooks import Ask, Delivery, Hook, Hooks, Verifier

_ADDRESS = "http://127.0.0.1:9/hooks"
_A_DAY = timedelta(days=1)


@dataclass
class _Given:
    """An integration that receives hooks, and one hook that its stand-in has signed."""

    trial: Trial
    hooks: Hooks
    login: str | None
    body: bytes
    headers: Mapping[str, str]

    def delivery(self, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Delivery:
        given = self.headers if headers is None else headers
        named = tuple((name.lower(), value) for name, value in given.items())
        return Delivery(named, self.body if body is None else body, self.trial.now)

    def receive(self, delivery: Delivery) -> Hook | HookRefused:
        """The hook, or why it was refused."""
        try:
            return asyncio.run(self.hooks.receive(delivery))
        except HookRefused as error:
            return error


def _given(subject: Subject) -> _Given | None:
    """None if the integration receives no hooks."""
    trial = subject.connected()
    hooks = trial.integration.hooks
    if hooks is None:
        return None

    async def link() -> str | None:
        answer = await trial.link()
        trial.profile.want_hooks(trial.login, _ADDRESS)
        trial.sandbox.advance(1)
        trial.login.visible_from = trial.login.visible_from or trial.sandbox.clock.today()
        return answer.external_id

    login = asyncio.run(link())
    trial.sandbox.outbox.close()
    sent = trial.profile.hook(trial.login, "changed")
    require(sent, "the stand-in must send a hook when the books of a login have changed: `Profile.hook`")
    assert sent is not None  # noqa: S101 - required just above
    return _Given(trial, hooks, login, sent.body, sent.sign())


def hook_of_the_provider_asks_for_a_sync_of_its_login(subject: Subject) -> None:
    """A hook that the stand-in signs is accepted, names the login, and asks for a sync."""
    if (given := _given(subject)) is None:
        return
    require(type(given.hooks.verifier) is not Verifier, "`hooks.verifier` must check a signature")
    hook = given.receive(given.delivery())
    require(isinstance(hook, Hook), f"a hook that the provider has signed was refused: {hook}")
    assert isinstance(hook, Hook)  # noqa: S101 - required just above
    require(hook.is_known and hook.is_ours, "`hooks.read` must know this kind, and this environment")
    require(hook.login is not None and hook.login == given.login, "the hook must name the login by its `external_id`")
    require(Ask.SYNC in hook.asks, "a hook about new data must ask for a sync")
    again = given.receive(given.delivery())
    same = isinstance(again, Hook) and again.delivery_id == hook.delivery_id
    require(same, "a second delivery must have the same `delivery_id`, so that it is recognised")


def hook_that_is_not_the_provider_s_is_refused(subject: Subject) -> None:
    """Without its signature, with another body, encoded or a day too early, a hook is refused or counts as late."""
    if (given := _given(subject)) is None:
        return
    early = Delivery(given.delivery().headers, given.body, given.trial.now - _A_DAY)
    late = Delivery(given.delivery().headers, given.body, given.trial.now + _A_DAY)
    with capture_logs() as logs:
        for name, delivery in {
            "without its header": given.delivery(headers={}),
            "with another body": given.delivery(body=given.body.replace(b"{", b'{"x":1,', 1)),
            "with an empty body": given.delivery(body=b""),
            "with a cut signature": given.delivery({name: value[:-4] for name, value in given.headers.items()}),
            "with Content-Encoding": given.delivery({**given.headers, "Content-Encoding": "gzip"}),
            "signed tomorrow": early,
        }.items():
            error = given.receive(delivery)
            require(isinstance(error, HookRefused), f"a hook {name} must be refused")
            told = f"{error!r} {logs}"
            require(not [one for one in given.trial.secrets if one in told], f"{name}: a secret is in the error or log")
    old = given.receive(late)
    require(isinstance(old, HookRefused) or old.is_late, "a hook that is a day old must be refused or count as late")


def genuine_hook_with_an_odd_body_does_no_harm(subject: Subject) -> None:
    """A signed body that is no JSON, nested deeply, or has other members than expected raises no error."""
    if (given := _given(subject)) is None:
        return
    for body in (b"{}", b"[1]", b"\xff", b'{"a":' * 10_000, b'{"webhook_type":[],"type":{},"eventType":7,"id":null}'):
        found = given.receive(given.delivery(given.trial.profile.sign_hook(body), body))
        harmless = isinstance(found, HookRefused) or not (found.asks or found.is_known)
        require(harmless, "a body that says nothing known must ask for nothing: `Hook(…, is_known=False)`")


CHECKS = (
    hook_of_the_provider_asks_for_a_sync_of_its_login,
    hook_that_is_not_the_provider_s_is_refused,
    genuine_hook_with_an_odd_body_does_no_harm,
)
