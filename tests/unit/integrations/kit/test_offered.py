"""What users choose among before they consent: the provider's list, kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from worker.errors import Refused, Transient
from worker.integrations.kit.base import Caller
from worker.integrations.kit.link_kinds import Choice, FormField
from worker.integrations.kit.offered import Offered

BANK = FormField("bank", "bank", secret=False, chosen=True)


class Provider:
    """Lists banks; `asked` is how often it was asked. Its clock stands still."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked, self.now = list(names), 0, 1000.0
        self.banks = Offered(BANK, self.ask, clock=lambda: self.now)

    async def ask(self, caller: Caller) -> Mapping[Choice, int]:
        self.asked += 1
        if not self.names:
            raise Transient("down")
        return {Choice(f"v-{name}", name): number for number, name in enumerate(self.names)}

    def labels(self) -> list[str]:
        return [one.label for one in asyncio.run(self.banks.choices(Caller()))]

    def chosen(self, value: str) -> int:
        return asyncio.run(self.banks.chosen(Caller(), {"bank": value}))


def test_list_is_asked_for_once_in_ten_minutes_and_keeps_its_order() -> None:
    provider = Provider("Nordea", "Aktia")

    assert provider.labels() == provider.labels() == ["Nordea", "Aktia"]
    assert (provider.chosen("v-Aktia"), provider.asked) == (1, 1)
    provider.names.append("Ålandsbanken")
    provider.now += 601
    assert provider.labels() == ["Nordea", "Aktia", "Ålandsbanken"]
    assert provider.asked == 2


@pytest.mark.parametrize("value", ["Nordea", "", "v-Gone"])
def test_value_that_is_not_offered_is_refused(value: str) -> None:
    with pytest.raises(Refused, match="this bank is not offered any more; nothing was changed"):
        Provider("Nordea").chosen(value)


def test_failure_of_the_provider_is_not_kept() -> None:
    provider = Provider()
    with pytest.raises(Transient):
        provider.labels()
    provider.names.append("Nordea")

    assert provider.labels() == ["Nordea"]
