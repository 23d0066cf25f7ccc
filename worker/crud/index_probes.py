"""Makes Postgres find rows one by one, by index."""

from __future__ import annotations

INDEX_PROBES = ", ".join(
    f"set_config('{name}', 'off', true)" for name in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")
)
"""Select this first in a transaction: then Postgres compares a page, or claims logins, with one index probe per row.

After a first load its statistics are old, and it would rather scan a whole table of medium size.
"""
