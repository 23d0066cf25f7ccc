"""Permissions in the HTTP API: API keys, and whose rows a key may read and change."""
