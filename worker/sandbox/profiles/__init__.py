"""The provider APIs that the sandbox speaks; adding one is one file here and one line below."""

from __future__ import annotations

from typing import Any

from worker.integrations.plaid.stand_in import PlaidProfile
from worker.integrations.schwab.stand_in import SchwabProfile

PROFILES: tuple[type[Any], ...] = (SchwabProfile, PlaidProfile)
