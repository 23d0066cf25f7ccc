"""Statements of the token refresh: leases, attempts, fenced writes, and grants that have ended."""
