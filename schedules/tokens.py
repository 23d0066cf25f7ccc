"""Token refresh: name → (task, seconds)."""

ENTRIES: dict[str, tuple[str, float]] = {
    "refresh-due": ("worker.tasks.tokens.refresh_due", 15),
    "drain-journal": ("worker.tasks.tokens.drain_journal", 30),
}
