"""What must not be read in a log is taken out; what is needed to follow a provider stays."""

from __future__ import annotations

import ast
import base64
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

import worker
from worker.integrations.registry import REGISTRY
from worker.telemetry.redaction import MASK, redact, redact_value, remember, remember_shapes

assert REGISTRY.keys()  # the shapes of a provider's tokens come with its integration

# The same in every process: parametrised test ids must be.
FERNET_KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
CIPHERTEXT = Fernet(FERNET_KEY)._encrypt_from_parts(b"secret", 1_700_000_000, bytes(16)).decode()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ("[('authorization', 'Bearer I0.b2F1dGgy@')]", "b2F1dGgy"),
        ("the token I0.b2F1dGgy@ was given", "b2F1dGgy"),
        ("sent Bearer a1b2c3d4e5 to them", "a1b2c3d4e5"),
        ("redis://:hunter2@127.0.0.1:6379/0", "hunter2"),
        ("postgresql://app:p%40ss@db/dashtam", "p%40ss"),
        ('{"access_token": "short"}', "short"),
        ('{"accessToken":"short"}', "short"),
        ("refresh_token='two words'", "two words"),
        ("grant_type=refresh_token&refresh_token=abc&x=1", "=abc"),
        ("FLOWER_PASSWORD=swordfish", "swordfish"),
        ("https://127.0.0.1/?code=C0.ab%40&session=1&state=zz", "C0.ab"),
        ("https://127.0.0.1/?code=C0.ab%40&session=1&state=zz", "state=zz"),
        pytest.param(f"cannot read {CIPHERTEXT}", CIPHERTEXT[:30], id="ciphertext"),
        pytest.param(f"k1:{FERNET_KEY},k2", FERNET_KEY, id="key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIi"),
        ("access-sandbox-2b7c1d3e-1111-2222-3333-444455556666", "2b7c1d3e"),
        ("opaque kJ3f9QmZx7LpV2sT8wYbR4nC6dHg end", "kJ3f9QmZx7LpV2sT8wYbR4nC6dHg"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("account 12345678 is closed", "12345678"),
        ("card 4111 1111 1111 1111", "4111 1111"),
        ("card 4111-1111-1111-1111", "4111-1111"),
        ("iban DE89370400440532013000", "89370400440532013000"),
    ],
)
def test_secret_is_taken_out(text: str, secret: str) -> None:
    assert secret not in redact(text)


@pytest.mark.deep
@pytest.mark.parametrize(
    "text",
    [
        "33e42d9a-033e-4dd0-9433-9b7ff7eea08a",
        "12345678-1234-4123-8123-123456789012",
        "2026-11-22T18:52:10.123456Z",
        "2026-11-22 18:52:10,123456",
        "succeeded in 0.0123456789s: None",
        "Task worker.tasks.tokens.refresh_due[0191e0c0-1234-7123-8123-123456789012] received",
        'File "/usr/lib/python3.11/site-packages/Sqlalchemy/engine/base.py", line 1234, in do_execute',
        "redis://127.0.0.1:6379/0",
        "refresh_token: None, tokens=5",
        "Bearer token expired; basic auth works",
        "digest 5d41402abc4b2a76b9719d911017c592",
        "needs_reauth (lost_rotation)",
    ],
)
def test_what_people_follow_stays_readable(text: str) -> None:
    assert redact(text) == text


def test_account_number_keeps_its_last_four_digits() -> None:
    assert redact("account 12345678") == "account …5678"


def test_address_keeps_its_host() -> None:
    assert redact("postgresql://app:secret@db.example/dashtam") == "postgresql://***@db.example/dashtam"


def test_remembered_value_is_hidden_wherever_it_stands() -> None:
    remember(["correct-horse"])

    assert redact("it is correct-horse!") == "it is ***!"


def test_short_value_is_not_remembered() -> None:
    remember(["no"])

    assert redact("no token") == "no token"


@pytest.mark.parametrize("name", ["access_token", "client_secret", "Authorization", "FLOWER_PASSWORD", "app_key"])
def test_value_with_a_secret_name_is_hidden_whatever_it_is(name: str) -> None:
    assert redact_value("x", name) == "***"
    assert redact_value({"nested": "x"}, name) == "***"


def test_values_within_values_are_reached() -> None:
    value = {"headers": [("Authorization", "Bearer abcdef123456")], "body": {"refresh_token": "r"}, "n": (1, 12345678)}

    assert redact_value(value) == {
        "headers": [["Authorization", "Bearer ***"]],
        "body": {"refresh_token": "***"},
        "n": [1, "…5678"],
    }


def test_numbers_that_measure_stay_numbers() -> None:
    assert redact_value(123456789, "bytes") == 123456789
    assert redact_value(123456789, "rows") == 123456789
    assert redact_value(0.123456789012, "seconds") == 0.123456789012
    assert redact_value(True, "has_refresh_token") is True
    assert redact_value(3, "tokens") == 3


def test_number_that_may_be_an_account_is_masked() -> None:
    assert redact_value(123456789, "account") == "…6789"
    assert redact_value("AB12CD", "account_number") == "…12CD"


def test_endless_nesting_ends() -> None:
    loop: dict[str, object] = {}
    loop["again"] = loop

    assert "…" in str(redact_value(loop))


def test_object_is_written_as_its_redacted_text() -> None:
    class Answer:
        def __str__(self) -> str:
            return "access_token=abc"

    assert redact_value(Answer()) == "access_token=***"


def test_shape_that_a_provider_s_integration_states_is_masked() -> None:
    assert redact("token frob.a-1") == "token frob.a-1"

    remember_shapes([r"\bfrob\.[\w-]+"])

    assert redact("token frob.a-1") == f"token {MASK}"


@pytest.mark.deep
def test_no_log_line_of_ours_loses_its_advice() -> None:
    texts = [
        part.value
        for path in sorted(Path(worker.__file__).parent.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log.")
        for part in ast.walk(call)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]

    assert [text for text in texts if redact(text) != text] == []
    assert len(texts) > 100
