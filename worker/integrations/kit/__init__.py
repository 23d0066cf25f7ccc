"""What every integration is made of: the base class, the way out over HTTP, and tools for reading answers."""
