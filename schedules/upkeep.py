"""Upkeep: name → (task, seconds)."""

ENTRIES: dict[str, tuple[str, float]] = {
    "warn-of-expiring-grants": ("worker.tasks.upkeep.warn_of_expiring_grants", 60),
    "send-notices": ("worker.tasks.upkeep.send_notices", 30),
    "send-hooks": ("worker.tasks.upkeep.send_hooks", 5),
    "reap": ("worker.tasks.upkeep.reap", 60),
    "retain": ("worker.tasks.upkeep.retain", 600),
}
