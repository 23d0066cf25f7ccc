"""How one process runs: its event loop, its end, its clock, its connections to Redis."""
