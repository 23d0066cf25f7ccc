"""The fixtures keep what they promise: tests see nothing of each other."""

from __future__ import annotations

import pytest
from redis import Redis
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from tests.support.databases import empty
from worker import crud
from worker.crud import audit
from worker.models import Provider, ProviderAuditLog, ProviderCreate, User


@pytest.mark.deep
def test_db_works_as_documented(db: Session, test_user: User) -> None:
    provider_in = ProviderCreate(user_id=test_user.id, provider_key="schwab", alias="Test Account")

    provider = crud.create_provider(session=db, provider_in=provider_in)

    assert (provider.user_id, provider.provider_key, provider.alias) == (test_user.id, "schwab", "Test Account")
    assert db.get(Provider, provider.id) is provider


@pytest.mark.deep
@pytest.mark.parametrize("attempt", [1, 2])
def test_rows_committed_in_db_session_are_gone_for_the_next_test(db_session: Session, attempt: int) -> None:
    db_session.add(User(email="once@example.com"))
    db_session.commit()

    assert db_session.scalar(select(func.count()).where(User.email == "once@example.com")) == 1


def test_emptying_removes_even_insert_only_rows(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        user = crud.create_user(session, email="gone@example.com")
        provider = crud.create_provider(
            session, provider_in=ProviderCreate(user_id=user.id, provider_key="schwab", alias="a")
        )
        audit.record(session, provider_id=provider.id, action="test")

    empty(engine)

    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(ProviderAuditLog)) == 0
        assert session.scalar(select(func.count()).select_from(User)) == 0


@pytest.mark.parametrize("attempt", [1, 2])
def test_redis_is_empty_at_the_start_of_each_test(redis: Redis, attempt: int) -> None:
    assert redis.get("left") is None
    redis.set("left", "behind")
