"""Account sync: name → (task, seconds)."""

ENTRIES: dict[str, tuple[str, float]] = {
    "sync-due": ("worker.tasks.accounts.sync_due", 30),
}
