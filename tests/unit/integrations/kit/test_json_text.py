"""JSON text read token by token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import BadRecord
from worker.integrations.kit.json_text import TOO_DEEP, check_all_keys_once, check_keys_once, members, shallow

WORDS = st.text(max_size=3) | st.sampled_from(['"', "\\", "]", "}{", "\\u0022", ":,"])
SCALARS = st.sampled_from([None, True, 0, -1.5, 10**30]) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=4)
CUT = json.loads(TOO_DEEP)


def cut_at(value: Any, levels: int) -> Any:
    """The same by recursion, which these values can bear."""
    if isinstance(value, list):
        return [cut_at(item, levels - 1) for item in value] if levels else CUT
    if isinstance(value, dict):
        return {key: cut_at(item, levels - 1) for key, item in value.items()} if levels else CUT
    return value


@given(VALUES, st.integers(0, 6), st.sampled_from([None, 1]), st.booleans())
def test_what_is_too_deep_and_that_alone_is_cut_out(value: Any, levels: int, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain).encode()

    assert json.loads(shallow(text, levels)) == cut_at(value, levels)


@pytest.mark.deep
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_without_end_is_cut_out_and_text_that_ends_within_is_no_json(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deep = opening * 50_000 + b"1" + closing * 50_000

    assert json.loads(shallow(b'{"bad":' + deep + b',"good":[1]}')) is not None
    assert json.loads(shallow(b"[" + deep + b",7]", 1)) == [CUT, 7]
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(shallow(b'{"bad":' + deep[:-500]))


@given(OBJECTS, st.sampled_from(["", " ", " garbage", "}{", '"', "\n<!-- x -->"]), st.sampled_from([None, 2]))
def test_members_are_those_that_a_decoder_finds(value: dict[str, Any], after: str, indent: int | None) -> None:
    found = members(b"\xef\xbb\xbf " + json.dumps(value, indent=indent).encode() + after.encode())

    assert found is not None
    assert found.ended
    assert found.rest == after.strip().encode()
    assert {key: json.loads(text) for key, text in found.values.items()} == cut_at(value, 1)


@given(OBJECTS, st.data())
def test_members_of_text_that_was_cut_off_are_whole_ones(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    end = data.draw(st.integers(1, max(len(text) - 1, 1)))

    found = members(text[:end])

    assert found is not None
    assert not found.ended or text[:end] == b"{}"
    assert {key: json.loads(part) for key, part in found.values.items()}.items() <= cut_at(value, 1).items()


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"<html>", b"\xff\xfe{"])
def test_what_is_no_object_has_no_members(text: bytes) -> None:
    assert members(text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"amount":1,"date":"x","amount":2}',
        '{"date":1,"amount":1,"am\\u006funt":2}',
        '{"amount" : 1, "x": {"amount": 3, "amount" :4}}',
    ],
)
def test_key_that_comes_twice_in_one_object_is_refused(text: str) -> None:
    with pytest.raises(BadRecord, match="key_twice:amount"):
        check_keys_once(text.encode(), (b'"amount"', 1))
    with pytest.raises(BadRecord, match="key_twice:amount"):
        check_all_keys_once(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"amount":1,"item":{"amount":2}}',
        '{"amount":1,"name":"amount"}',
        '{"amount":1,"name":"\\"amount\\":\\u00e9"}',
        '{"amount":' + "9" * 5000 + ',"x":1e999}',
    ],
)
def test_same_key_in_another_object_or_as_a_value_is_none_of_two(text: str) -> None:
    check_keys_once(text.encode(), (b'"amount"', 1))
    check_all_keys_once(text.encode())


_keys = st.sampled_from(["a", "b", ":", " ", "é"])
_values = st.recursive(
    st.sampled_from(["1", "null", '":"', '" :"', '"a"', '"a\\":"', "-1.5"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(_keys, st.sampled_from(["", " ", "\n "]), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}"{space}:{value}' for key, space, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)


@given(_values)
def test_counting_keys_finds_what_looking_at_each_object_finds(text: str) -> None:
    def twice(pairs: list[tuple[str, object]]) -> object:
        names = [name for name, _ in pairs]
        found.append(len(set(names)) < len(names))
        return dict(pairs)

    found: list[bool] = []
    json.loads(text, object_pairs_hook=twice)

    if any(found):
        with pytest.raises(BadRecord, match="key_twice"):
            check_all_keys_once(text.encode())
    else:
        check_all_keys_once(text.encode())
