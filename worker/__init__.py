"""Dashtam's background worker.

`schedules` says what runs when. Celery beat sends those task names; `worker.tasks` receives them, claims what is due
from Postgres and hands ids to `worker.services`, which refresh tokens and sync accounts through `worker.integrations`
(HTTP out) and `worker.crud` (every query) into `worker.models` (the tables). What is due is kept in Postgres;
Redis only carries messages.
"""
