"""All SQL statements, one file for each subject; locks, leases and fenced writes are functions here."""

from worker.crud.providers import create_provider, create_user, get_or_create_user, get_provider

__all__ = ["create_provider", "create_user", "get_or_create_user", "get_provider"]
