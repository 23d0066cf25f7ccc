"""Each factory makes a row that the tables accept, with nothing but a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from tests import factories
from tests.support.environment import new_keys
from worker.models import ProviderToken
from worker.services.encryption import EncryptionService


@pytest.mark.deep
@pytest.mark.parametrize(
    "make",
    [factories.make_user, factories.make_provider, factories.make_account, factories.make_transaction],
)
def test_factory_needs_only_a_session(db_session: Session, make: Callable[[Session], Any]) -> None:
    row = make(db_session)

    db_session.refresh(row)
    assert row.id is not None


@pytest.mark.deep
def test_linked_provider_has_a_token_that_its_keys_open(db_session: Session) -> None:
    encryption = EncryptionService(new_keys("a"))

    provider = factories.make_linked_provider(db_session, encryption, refresh_token="made-up")

    token = db_session.get_one(ProviderToken, provider.id)
    assert token.refresh_token is not None
    assert encryption.unseal(token.refresh_token, provider_id=provider.id, kind="refresh", generation=1) == "made-up"
