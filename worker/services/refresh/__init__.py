"""The token refresh. Start with `protocol`, which is in the order of the steps; docs/refresh.md explains it."""
