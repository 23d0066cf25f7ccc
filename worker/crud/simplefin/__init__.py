"""SimpleFIN, served: the accesses of apps, and the rows that they read."""
