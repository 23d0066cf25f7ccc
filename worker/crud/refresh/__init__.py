"""Statements of the token refresh: leases, attempts, fenced writes, ended grants, waiting answers."""
