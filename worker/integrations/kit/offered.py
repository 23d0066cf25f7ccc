"""What users choose among before they consent, such as banks: the provider's list, which is kept for ten minutes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from worker.errors import Refused
from worker.integrations.kit.base import Caller
from worker.integrations.kit.link_kinds import Choice, FormField

T = TypeVar("T")

_KEPT_SECONDS = 600.0


class Offered(Generic[T]):
    """The choices of one field of a link kind's `asks`.

    Args:
        field: the field.
        ask: asks the provider; returns what each choice stands for, in the order in which people see them.
        clock: returns seconds that only increase.
    """

    def __init__(
        self,
        field: FormField,
        ask: Callable[[Caller], Awaitable[Mapping[Choice, T]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._field, self._ask, self._clock = field, ask, clock
        self._kept_until, self._offers = 0.0, dict[Choice, T]()

    async def choices(self, caller: Caller) -> Sequence[Choice]:
        """All choices. Raises `ProviderError`."""
        if not self._offers or self._clock() > self._kept_until:
            self._offers = dict(await self._ask(caller))
            self._kept_until = self._clock() + _KEPT_SECONDS
        return list(self._offers)

    async def chosen(self, caller: Caller, form: Mapping[str, str]) -> T:
        """What the choice in a form stands for.

        Raises:
            Refused: the provider offers it no longer.
            ProviderError: the provider gives no list.
        """
        for choice in await self.choices(caller):
            if choice.value == form[self._field.name]:
                return self._offers[choice]
        raise Refused(f"this {self._field.label} is not offered any more; nothing was changed. Choose another one")
