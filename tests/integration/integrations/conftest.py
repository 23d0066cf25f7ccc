"""The integrations as workers have them, against a sandbox in a process of its own."""

from __future__ import annotations

import pytest

from tests.support.sandbox import SandboxAdmin, SandboxProcess
from worker.integrations.enable_banking.integration import EnableBanking, EnableBankingSettings
from worker.integrations.enable_banking.stand_in import StandIn as EnableBankingStandIn
from worker.integrations.kit.http import Api
from worker.integrations.kit.integration import Integration
from worker.integrations.plaid.integration import Plaid, PlaidSettings
from worker.integrations.schwab.integration import Schwab, SchwabSettings
from worker.integrations.simplefin.integration import Simplefin, SimplefinSettings
from worker.integrations.snaptrade.integration import Snaptrade, SnaptradeSettings
from worker.integrations.snaptrade.stand_in import StandIn


@pytest.fixture
def provider(sandbox: SandboxAdmin) -> SandboxAdmin:
    """The provider's own side, as at its start."""
    return sandbox


class Connect:
    """Opens integrations; each within the event loop that uses it."""

    def __init__(self, process: SandboxProcess) -> None:
        self._process = process

    def schwab(self, *, total_seconds: float = 10, max_bytes: int = 1 << 25) -> Schwab:
        url = self._process.url("schwab")
        settings = SchwabSettings(
            app_key="sandbox-app", app_secret="sandbox-secret", redirect_uri="https://127.0.0.1", base_url=url
        )
        return Schwab(settings, Api(url, name="schwab", total_seconds=total_seconds, max_bytes=max_bytes))

    def plaid(self, *, total_seconds: float = 10, max_bytes: int = 1 << 25) -> Plaid:
        url = self._process.url("plaid")
        settings = PlaidSettings(client_id="sandbox-client", secret="sandbox-secret", base_url=url)
        return Plaid(settings, Api(url, name="plaid", total_seconds=total_seconds, max_bytes=max_bytes))

    def simplefin(self, *, total_seconds: float = 10, max_bytes: int = 1 << 25) -> Simplefin:
        url = self._process.url("simplefin")
        settings = SimplefinSettings(base_url=url)
        return Simplefin(settings, Api(url, name="simplefin", total_seconds=total_seconds, max_bytes=max_bytes))

    def snaptrade(self, *, total_seconds: float = 10, max_bytes: int = 1 << 25) -> Snaptrade:
        url = self._process.url("snaptrade")
        settings = SnaptradeSettings(**{**StandIn.credentials, "base_url": url})
        return Snaptrade(settings, Api(url, name="snaptrade", total_seconds=total_seconds, max_bytes=max_bytes))

    def enable_banking(self, *, total_seconds: float = 10, max_bytes: int = 1 << 25) -> EnableBanking:
        url = self._process.url("enable_banking")
        settings = EnableBankingSettings(**EnableBankingStandIn.credentials, base_url=url)
        return EnableBanking(
            settings, Api(url, name="enable_banking", total_seconds=total_seconds, max_bytes=max_bytes)
        )

    def __getitem__(self, key: str) -> Integration:
        opened: Integration = getattr(self, key)()
        return opened


@pytest.fixture
def connect(sandbox_process: SandboxProcess) -> Connect:
    return Connect(sandbox_process)
