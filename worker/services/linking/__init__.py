"""Linking a login, renewing its consent, and ending its link."""
