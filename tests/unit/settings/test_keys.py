from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet

from worker.errors import ConfigurationError
from worker.settings.keys import parse_keys


def _key() -> str:
    return Fernet.generate_key().decode()


_DOUBLE = _key()


@pytest.mark.deep
@pytest.mark.parametrize(
    "keys",
    [
        "",
        " , ",
        _key(),
        f":{_key()}",
        "k1:",
        "k1:short",
        "k1:" + "ä" * 43 + "=",
        "k1:" + base64.urlsafe_b64encode(b"x" * 31).decode(),
        f"k1:{_key()},k1:{_key()}",
        f"k1:{_DOUBLE},k2:{_DOUBLE}",
    ],
    ids=["none", "blanks", "no_id", "empty_id", "empty", "short", "not_ascii", "31_bytes", "same_id", "same_key"],
)
def test_unusable_keys_refuse_startup_naming_the_variable_and_no_value(keys: str) -> None:
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEYS") as caught:
        parse_keys(keys)

    assert all(part.rpartition(":")[2] not in str(caught.value) for part in keys.split(",") if len(part) > 10)


def test_keys_keep_their_order() -> None:
    assert list(parse_keys(f"b:{_key()}, a:{_key()}")) == ["b", "a"]


@pytest.mark.parametrize(
    ("keys", "entry"),
    [("k1", 1), (f"k1:{_DOUBLE},k2:short", 2), (f"k1:{_DOUBLE},,k2:{_key()},k2:{_key()}", 3)],
    ids=["form", "key", "repeated"],
)
def test_refusal_says_which_entry_counted_from_one(keys: str, entry: int) -> None:
    with pytest.raises(ConfigurationError, match=f"entry {entry} "):
        parse_keys(keys)


@pytest.mark.parametrize(
    "key",
    [
        base64.urlsafe_b64encode(b"x" * 33).decode(),
        base64.urlsafe_b64encode(b"x" * 64).decode(),
        _DOUBLE[:20] + "!" + _DOUBLE[20:],
        _DOUBLE[:20] + " " + _DOUBLE[20:],
    ],
    ids=["33_bytes", "64_bytes", "sign_inside", "blank_inside"],
)
def test_key_of_another_length_or_with_other_signs_is_no_key(key: str) -> None:
    with pytest.raises(ConfigurationError, match="entry 1 is not a key"):
        parse_keys(f"k1:{key}")


@pytest.mark.parametrize("key_id", ["k 1", "k1 ", "k\t1", "\ufeffk1", "k1\u200b", "k\u00a01"])
def test_key_id_with_a_blank_or_an_invisible_sign_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigurationError, match="entry 1 has an invisible character in its id"):
        parse_keys(f"{key_id}:{_DOUBLE}")
