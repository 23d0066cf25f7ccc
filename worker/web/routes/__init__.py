"""Routes by subject: each reads a request, calls one service, and writes the answer."""
