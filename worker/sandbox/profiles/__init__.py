"""The provider APIs that the sandbox speaks; adding one is one file here and one line below."""

from __future__ import annotations

from typing import Any

from worker.sandbox.profiles.plaid import PlaidProfile
from worker.sandbox.profiles.schwab import SchwabProfile

PROFILES: tuple[type[Any], ...] = (SchwabProfile, PlaidProfile)
