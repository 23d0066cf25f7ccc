"""Hooks whose kind, login and application are each a member of the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from worker.integrations.kit.hooks import Ask, Hook, Hooks, Verifier, words


class Members(NamedTuple):
    """The names of the members.

    Attributes:
        kind: has the provider's word for what happened.
        login: has the provider's own id of the login.
        application: has the id of the application that the hook was sent for.
        ids: may have the hook's own id; the first that is there counts.
    """

    kind: str
    login: str
    application: str
    ids: tuple[str, ...]


class EventHooks(Hooks):
    """See `worker.integrations.kit.hooks.Hooks`.

    Args:
        verifier: checks the signature.
        members: the names of the body's members.
        application: the id of our application.
        asks: what each kind asks for; all kinds that are known.
    """

    def __init__(
        self, verifier: Verifier, members: Members, *, application: str, asks: Mapping[str, frozenset[Ask]]
    ) -> None:
        super().__init__(verifier, environment=application)
        self.id_fields = members.ids
        self._members = members
        self._asks = asks

    def read(self, body: Mapping[str, Any]) -> Hook:
        """What a verified hook asks for."""
        kind, login = words(body.get(self._members.kind)), body.get(self._members.login)
        return Hook(
            kind,
            "",
            login=login if isinstance(login, str) else None,
            asks=self._asks.get(kind, frozenset()),
            is_known=kind in self._asks,
            is_ours=body.get(self._members.application) == self.environment,
        )
