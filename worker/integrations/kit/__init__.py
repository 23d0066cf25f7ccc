"""The parts that every integration uses: the base class, the HTTP client, and tools for reading answers."""
