from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from worker.errors import Transient
from worker.integrations.kit.base import Caller
from worker.integrations.kit.heard import Heard
from worker.integrations.kit.http import Api
from worker.integrations.plaid.integration import Plaid


def heard(*answers: tuple[str, str | None, int, bytes], start: object = "") -> Heard:
    found = Heard(start)
    for answer in answers:
        found.note(*answer)
    return found


FIRST = ("https://x/accounts", None, 200, b"[1]")
SECOND = ("https://x/rows", "A", 200, b"[]")


def test_same_answers_have_the_same_value_and_begin_it() -> None:
    whole = heard(FIRST, SECOND)

    assert heard(FIRST, SECOND).value == whole.value
    assert heard(FIRST).begins(whole.value)
    assert whole.begins(whole.value)
    assert len(whole.value) == 16


@pytest.mark.parametrize(
    "other",
    [
        heard(FIRST, SECOND, start="another day"),
        heard(SECOND, FIRST),
        heard(FIRST, (SECOND[0], "B", 200, b"[]")),
        heard(FIRST, (SECOND[0], "A", 404, b"[]")),
        heard(FIRST, ("https://x/other", "A", 200, b"[]")),
        heard(FIRST, (SECOND[0], "A", 200, b"[] ")),
        heard(FIRST, SECOND, SECOND),
    ],
    ids=["start", "order", "account", "status", "address", "body", "one more"],
)
def test_what_differs_begins_no_longer(other: Heard) -> None:
    assert not other.begins(heard(FIRST, SECOND).value)


def test_reading_with_a_call_without_an_answer_equals_no_other() -> None:
    found = heard(FIRST)
    found.note_failure()
    found.note(*SECOND)

    assert (found.value, found.is_comparable) == (b"", False)
    assert not found.begins(heard(FIRST, SECOND).value)


def test_reading_of_very_many_answers_equals_no_other() -> None:
    most = heard(*[FIRST] * 128)
    more = heard(*[FIRST] * 129)

    assert (len(most.value), most.is_comparable) == (128 * 8, True)
    assert (more.value, more.is_comparable) == (b"", False)
    assert not more.begins(most.value)


def test_api_notes_each_answer_without_what_always_varies() -> None:
    def answered(number: int, *, text: str = "a") -> bytes:
        api = _api(lambda _: httpx.Response(200, text=f'{{"rows":["{text}"],"request_id":"r{number}"}}'))
        return _ask(api).value

    assert answered(1) == answered(2)
    assert answered(1) != answered(1, text="b")


def test_text_that_looks_like_a_request_id_is_not_left_out() -> None:
    def answered(text: bytes) -> bytes:
        return _ask(
            _api(lambda _: httpx.Response(200, content=b'{"name":"\\"request_id\\":\\"' + text + b'\\""}'))
        ).value

    assert answered(b"1") != answered(b"2")


def test_api_notes_a_call_without_an_answer() -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    found = Heard()
    with pytest.raises(Transient):
        _ask(_api(fail), found)
    found.note(*FIRST)

    assert not found.is_comparable


def _api(handler: Any) -> Api:
    transport = httpx.MockTransport(handler)
    return Api("https://x", name="x", total_seconds=5, max_bytes=1000, transport=transport, varying=Plaid.varying)


def _ask(api: Api, found: Heard | None = None) -> Heard:
    found = found or Heard()
    endpoint = api.endpoint("rows", "GET", "/rows")
    asyncio.run(api.send(endpoint, Caller(None, heard=found), headers={}))
    return found
