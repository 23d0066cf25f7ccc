"""The change feed: positions in the log, what was logged after one, and rows as they are now."""
