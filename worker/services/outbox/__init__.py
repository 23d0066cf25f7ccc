"""Hooks that we send: subscriptions, signatures, and the sending itself."""
