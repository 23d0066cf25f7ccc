"""Large libraries, imported before coverage begins to trace: on Python 3.11 that would take them twice as long."""

import aiohttp
import celery.app.trace
import celery.contrib.testing.worker
import hypothesis.stateful
import psycopg
import pydantic_settings
import rich.progress
import sqlalchemy.orm
import typer.testing

__all__ = ["aiohttp", "celery", "hypothesis", "psycopg", "pydantic_settings", "rich", "sqlalchemy", "typer"]
