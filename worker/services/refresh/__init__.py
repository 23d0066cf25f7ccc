"""The token refresh; `protocol` reads in the order in which it happens, docs/refresh.md explains it."""
