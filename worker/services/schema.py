"""The database's schema and roles, for installation and upgrades: see `worker.crud.schema`."""

from __future__ import annotations

from worker.crud.schema import create_roles, upgrade

__all__ = ["create_roles", "upgrade"]
