"""Hooks of providers: receiving them, and asking providers for the state of logins."""
