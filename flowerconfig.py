"""Flower's configuration: `celery -A worker.app flower --conf=flowerconfig.py`.

Variables: FLOWER_PASSWORD or FLOWER_PASSWORD_FILE (required), FLOWER_USER (operator), FLOWER_ADDRESS (127.0.0.1),
FLOWER_PORT (5555), FLOWER_ALLOW_TRIGGERS (0: look, do not touch). Open to others only behind TLS: docs/operations.md.
"""

import sys

from worker.app import app
from worker.errors import ConfigurationError
from worker.settings import FlowerSettings, load
from worker.telemetry.flower import flower_options, shield
from worker.telemetry.log import configure_logging

try:
    settings = load(FlowerSettings)
    configure_logging(settings)
    for name, value in flower_options(settings).items():
        globals()[name] = value
except ConfigurationError as error:
    sys.exit(f"error: {error}")
shield()
# Flower inspects with eight questions at once, and each holds two connections: with the workers' small pool they wait
# for one another for ever, and Flower neither shows workers nor stops.
app.conf.broker_pool_limit = 32
