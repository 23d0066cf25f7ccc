"""Every query, by subject; locks, leases and fenced writes have their names there."""

from worker.crud.providers import create_provider, create_user, get_or_create_user, get_provider

__all__ = ["create_provider", "create_user", "get_or_create_user", "get_provider"]
