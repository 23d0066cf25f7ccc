"""The account sync: a run, its pages, its end, and when the next one is due; docs/sync.md explains it."""
