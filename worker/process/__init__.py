"""Tools for one process: its event loop, its end, its clock and its Redis clients."""
