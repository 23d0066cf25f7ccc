from __future__ import annotations

import pytest

from worker.sandbox.loopback import is_registered

REGISTERED = "https://127.0.0.1"


@pytest.mark.parametrize(
    "address", [REGISTERED, "http://127.0.0.1:8000/oauth/x/callback", "http://localhost:8000/", "http://[::1]:8000/"]
)
def test_browser_may_be_sent_to_the_registered_address_and_to_a_page_on_this_machine(address: str) -> None:
    assert is_registered(address, REGISTERED)


@pytest.mark.parametrize(
    "address", ["", "https://127.0.0.1/other", "http://example.org/", "http://127.0.0.1.example.org/"]
)
def test_browser_is_sent_nowhere_else(address: str) -> None:
    assert not is_registered(address, REGISTERED)
