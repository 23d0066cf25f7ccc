"""Channels that are incomplete or unsafe refuse startup."""

from __future__ import annotations

from typing import Any

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, load

pytestmark = pytest.mark.deep

SERVERS = {"database_url": "postgresql://localhost/x", "redis_url": "redis://localhost"}
EMAIL = {"notice_channels": "email", "smtp_host": "mail.example", "notice_from": "notices@example.com"}
WEBHOOK = {"notice_channels": "webhook", "webhook_url": "https://hooks.example", "webhook_secret": "made-up-secret"}


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"notice_channels": "log,pigeon"}, "NOTICE_CHANNELS"),
        (EMAIL | {"smtp_host": ""}, "SMTP_HOST"),
        (EMAIL | {"notice_from": ""}, "NOTICE_FROM"),
        (EMAIL | {"notice_from": "Dashtam <a@[>"}, "NOTICE_FROM"),
        (EMAIL | {"operator_email": "a@"}, "OPERATOR_EMAIL"),
        (EMAIL | {"smtp_security": "none"}, "SMTP_SECURITY"),
        (WEBHOOK | {"webhook_secret": None}, "WEBHOOK_SECRET"),
        (WEBHOOK | {"webhook_url": ""}, "WEBHOOK_URL"),
        (WEBHOOK | {"webhook_url": "http://hooks.example"}, "WEBHOOK_URL"),
        ({"manual_quota_share": 1}, "MANUAL_QUOTA_SHARE"),
        ({"quota_scale": 0}, "QUOTA_SCALE"),
        ({"breaker_seconds": "abc"}, "BREAKER_SECONDS"),
        ({"retain_runs_days": -1}, "RETAIN_RUNS_DAYS"),
    ],
)
def test_wrong_value_is_refused_by_the_name_of_its_variable(values: dict[str, Any], variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable) as refused:
        load(Settings, **SERVERS | values)

    assert "made-up-secret" not in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        EMAIL,
        EMAIL | {"notice_from": "Dashtam <notices@example.com>", "operator_email": "ops@mailhost"},
        EMAIL | {"smtp_host": "localhost", "smtp_security": "none"},
        WEBHOOK,
        WEBHOOK | {"webhook_url": "http://127.0.0.1:8000/x"},
    ],
)
def test_complete_and_safe_channels_are_accepted(values: dict[str, Any]) -> None:
    settings = load(Settings, **SERVERS | values)

    assert settings.enabled_channels == (values.get("notice_channels", "log"),)
