"""Celery tasks. Each one parses its message or claims due rows, calls one service function and maps its errors."""
