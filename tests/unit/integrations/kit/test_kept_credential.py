"""Credentials with data beside them."""

from __future__ import annotations

import re

import pytest

from worker.integrations.kit.kept_credential import KeptCredential

KEPT = KeptCredential("toy", list[dict[str, str]], list)


@pytest.mark.parametrize("kept", [[], [{"name": "Ä"}], [{"name": "x" * number} for number in range(5)]])
def test_what_is_written_is_read_again(kept: list[dict[str, str]]) -> None:
    text = KEPT.write("4604aa90-f8a8", kept)

    assert text.startswith("toy.4604aa90-f8a8.")
    assert text.isascii()
    assert KEPT.read(text) == ("4604aa90-f8a8", kept)


def test_text_is_recognised_wherever_it_is_written() -> None:
    text = KEPT.write("4604aa90-f8a8", [{"name": "x"}])

    assert re.sub(KEPT.secret_shape, "***", f"{{'token': '{text}'}}") == "{'token': '***'}"
    assert re.search(KEPT.secret_shape, "toy.id stuff, toys.4604aa90-f8a8.4604aa90-f8a8.4604aa90-f8a8") is None


@pytest.mark.parametrize("text", ["id-1", "id-1.", "toy.id-1", "toy.id-1.!", "toy.id-1.W10x", "id-1.eyJhIjoxfQ"])
def test_credential_that_stands_alone_or_beside_nonsense_has_nothing(text: str) -> None:
    KEPT.read(text)[1].append({"name": "of another login"})

    assert KEPT.read(text) == ("id-1", [])
