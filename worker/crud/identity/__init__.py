"""A person says which accounts are the same: merging, splitting, and undoing it."""
