"""Files that banks hand out: OFX, QFX and others. Importing this package does not import its modules."""
