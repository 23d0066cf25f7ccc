"""Statements of the hooks that we send: events, subscriptions, deliveries."""
