"""What a provider's hook asks for. A hook is a hint: nothing of it is stored as data of a login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Ask(StrEnum):
    """What a hook asks us to do."""

    SYNC = "sync"  # the provider has new data: the login's sync is due
    CHECK = "check"  # the state of the login may have changed: ask the provider for it


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook whose signature is right.

    Attributes:
        kind: the provider's own words for it, for example `TRANSACTIONS/SYNC_UPDATES_AVAILABLE`.
        delivery_id: by which a second delivery of the same hook is recognised.
        login: the provider's own id of the login (`providers.external_id`); None if it concerns no single login.
        asks: what it asks for; empty if there is nothing to do.
        is_known: False for a kind that the integration does not know.
        is_ours: False if it was sent for another environment of the provider, such as its sandbox.
        is_late: it is older than a first delivery may be, so it is a repeated one.
        notice: the stage of the notice to the login's user that it opens; None if it opens none.
        detail: a few words and numbers that are kept with the delivery; no personal data.
    """

    kind: str
    delivery_id: str
    login: str | None = None
    asks: frozenset[Ask] = frozenset()
    is_known: bool = True
    is_ours: bool = True
    is_late: bool = False
    notice: str | None = None
    detail: Mapping[str, str | int | bool] = field(default_factory=dict)
