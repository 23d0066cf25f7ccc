"""Celery tasks: each claims or parses, calls one service function, and maps the outcome."""
