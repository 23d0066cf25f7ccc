"""Which e-mail addresses can be written to, and in what form."""

from __future__ import annotations

import pytest

from worker.cli.run.demo import USER
from worker.text.mail_addresses import for_header, normalised


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (" ann@Example.COM\n", "ann@example.com"),
        ("Ann+tag@example.com", "Ann+tag@example.com"),
        ("ann@xn--mnchen-3ya.example", "ann@münchen.example"),
        ("ops@mailhost", "ops@mailhost"),
        ("ops@mail.internal", "ops@mail.internal"),
        (USER, USER),
    ],
)
def test_address_is_stored_in_one_form(given: str, stored: str) -> None:
    assert normalised(given) == stored


@pytest.mark.parametrize(
    "given",
    ["", "a", "a@", "@", "a@[", "a@b@c", "a\nBcc: x@example.com", "a b@example.com", "a@" + "x" * 300, "a@\x00"],
)
@pytest.mark.parametrize("read", [normalised, for_header])
def test_what_no_mail_can_be_sent_to_is_refused(read: object, given: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r"\S"):
        read(given)


def test_header_has_the_name_and_a_domain_in_ascii() -> None:
    address = for_header("Dashtam <notices@münchen.example>")

    assert (address.display_name, address.addr_spec) == ("Dashtam", "notices@xn--mnchen-3ya.example")


def test_stored_address_has_no_name() -> None:
    with pytest.raises(ValueError, match="display name"):
        normalised("Ann <ann@example.com>")
