"""The account sync: a run, its pages, its end, and when the next one is due; explained in docs/sync.md."""
