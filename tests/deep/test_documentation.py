"""What the documentation states and shows is so."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.support.environment import ROOT

PICTURES = ("run", "explain")


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_shown_asks_nobody_for_anything_and_names_nothing_of_the_machine_it_was_taken_on(name: str) -> None:
    text = (ROOT / f"docs/images/{name}.svg").read_text()

    assert f"docs/images/{name}.svg" in (ROOT / "README.md").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own file
    assert not re.findall(r"url\(\"?http|href=|@import", text)
    assert not re.findall(r"/(?:tmp|home|root|work|Users)/", text)
    assert "Plaid" in text
