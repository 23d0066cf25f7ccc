"""The schema's history. Run with `dashtam migrate` or `alembic upgrade head`."""
