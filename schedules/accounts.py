"""Account sync, and the state of logins: name → (task, seconds)."""

ENTRIES: dict[str, tuple[str, float]] = {
    "sync-due": ("worker.tasks.accounts.sync_due", 30),
    "check-due": ("worker.tasks.accounts.check_due", 30),
}
