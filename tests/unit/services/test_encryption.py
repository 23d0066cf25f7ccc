from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet

from tests.support.environment import new_keys
from worker.errors import EncryptionError
from worker.services.encryption import EncryptionService

ID = UUID("01890000-0000-7000-8000-000000000001")
KEYS = new_keys("k1")


@pytest.fixture
def service() -> EncryptionService:
    return EncryptionService(KEYS)


def test_service_reads_its_keys_from_the_settings() -> None:
    service = EncryptionService()

    ciphertext = service.encrypt("x")

    assert ciphertext.startswith("gAAAAA")
    assert service.decrypt(ciphertext) == "x"


def test_service_takes_keys_as_given() -> None:
    service = EncryptionService(keys=KEYS)

    assert service.encrypt("x").startswith("gAAAAA")
    assert service.key_ids == ("k1",)


def test_sealed_value_opens_with_its_own_binding(service: EncryptionService) -> None:
    ciphertext = service.seal("secret", provider_id=ID, kind="refresh", generation=3)

    assert ciphertext.startswith("gAAAAA")
    assert service.unseal(ciphertext, provider_id=ID, kind="refresh", generation=3) == "secret"
    assert service.unseal(ciphertext, provider_id=ID, kind="refresh", generation=3, key_id="k1") == "secret"


@pytest.mark.parametrize(
    "binding", [{"provider_id": uuid4()}, {"kind": "access"}, {"generation": 4}], ids=["provider", "kind", "generation"]
)
def test_sealed_value_that_was_moved_is_refused(service: EncryptionService, binding: dict[str, object]) -> None:
    ciphertext = service.seal("secret", provider_id=ID, kind="refresh", generation=3)

    with pytest.raises(EncryptionError, match="another provider, kind or generation"):
        service.unseal(ciphertext, **{"provider_id": ID, "kind": "refresh", "generation": 3, **binding})  # type: ignore[arg-type]


def test_value_bound_to_nothing_is_refused_as_a_token(service: EncryptionService) -> None:
    with pytest.raises(EncryptionError, match="not bound"):
        service.unseal(service.encrypt("secret"), provider_id=ID, kind="refresh", generation=1)


@pytest.mark.parametrize("ciphertext", ["", "gAAAAA", "not a token", "ä"])
def test_nonsense_is_refused(service: EncryptionService, ciphertext: str) -> None:
    with pytest.raises(EncryptionError, match="no key"):
        service.decrypt(ciphertext)


def test_one_changed_character_is_refused(service: EncryptionService) -> None:
    ciphertext = service.encrypt("secret")
    changed = ciphertext[:40] + ("A" if ciphertext[40] != "A" else "B") + ciphertext[41:]

    with pytest.raises(EncryptionError):
        service.decrypt(changed)


def test_key_that_was_withdrawn_is_named_and_its_value_is_not() -> None:
    old, new = new_keys("k1"), new_keys("k2")
    ciphertext = EncryptionService(old).seal("secret", provider_id=ID, kind="refresh", generation=1)

    with pytest.raises(EncryptionError, match="k1") as caught:
        EncryptionService(new).unseal(ciphertext, provider_id=ID, kind="refresh", generation=1, key_id="k1")
    assert old.partition(":")[2] not in str(caught.value)


def test_rotated_service_writes_with_the_first_key_and_reads_with_all() -> None:
    old, new = new_keys("k1"), new_keys("k2")
    before, after = EncryptionService(old), EncryptionService(f"{new},{old}")

    ciphertext = before.encrypt("secret")

    assert after.key_id == "k2"
    assert after.decrypt(ciphertext) == "secret"
    with pytest.raises(EncryptionError):
        before.decrypt(after.encrypt("secret"))


def test_same_value_is_never_the_same_ciphertext(service: EncryptionService) -> None:
    assert service.encrypt("x") != service.encrypt("x")


def test_ciphertext_that_an_earlier_release_stored_still_opens() -> None:
    """Its form on the disk is part of the contract: a new one would lose every stored token."""
    key = Fernet.generate_key()
    stored = Fernet(key).encrypt(f'["{ID}","refresh",3,"secret"]'.encode()).decode()

    assert (
        EncryptionService(f"k1:{key.decode()}").unseal(stored, provider_id=ID, kind="refresh", generation=3) == "secret"
    )
