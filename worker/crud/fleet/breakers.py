"""Reads the kill switch and circuit breaker of each integration; `worker.crud.integration_states` changes them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from worker.models import IntegrationState


def read_states(session: Session) -> dict[str, IntegrationState]:
    """All states by `provider_key`; an integration without a row is closed and not paused."""
    return {state.provider_key: state for state in session.scalars(select(IntegrationState))}
