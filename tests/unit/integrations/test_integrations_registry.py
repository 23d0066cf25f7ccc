from __future__ import annotations

from contextlib import suppress

import httpx
import pytest

from worker.errors import ConfigurationError
from worker.integrations.kit.http import Api
from worker.integrations.plaid.integration import PlaidSettings
from worker.integrations.registry import REGISTRY, build_integrations
from worker.integrations.schwab.integration import SchwabSettings
from worker.sandbox.stand_ins import stand_in, variables
from worker.settings import Settings, load

ENVIRONMENT = {
    "SCHWAB_APP_KEY": "app",
    "SCHWAB_APP_SECRET": "SECRETWORD",
    "SCHWAB_REDIRECT_URI": "https://127.0.0.1",
    "SCHWAB_BASE_URL": "https://schwab.test",
    "PLAID_CLIENT_ID": "client",
    "PLAID_SECRET": "SECRETWORD",
    "PLAID_BASE_URL": "https://plaid.test",
    "SNAPTRADE_CLIENT_ID": "client",
    "SNAPTRADE_CLIENT_SECRET": "SECRETWORD",
    "SNAPTRADE_REDIRECT_URI": "https://127.0.0.1",
}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for key in REGISTRY:
        with suppress(KeyError):
            for name, value in variables(stand_in(key), "http://127.0.0.1:1").items():
                monkeypatch.setenv(name, value)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return load(Settings)


def build(keys: tuple[str, ...], settings: Settings) -> dict[str, object]:
    return dict(build_integrations(keys, settings, transport=httpx.MockTransport(lambda _: httpx.Response(200))))


@pytest.mark.deep
def test_named_integrations_are_built_from_the_environment(configured: Settings) -> None:
    built = build(tuple(REGISTRY), configured)

    assert {key: type(integration) for key, integration in built.items()} == REGISTRY


@pytest.mark.deep
def test_only_named_integrations_need_their_settings(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHWAB_APP_KEY", "")
    monkeypatch.setenv("DASHTAM_ENV_FILE", "/nonexistent")

    assert set(build(("plaid",), configured)) == {"plaid"}
    with pytest.raises(ConfigurationError, match="SCHWAB_APP_KEY"):
        build(("schwab",), configured)


def test_unknown_integration_names_the_variable_and_the_known_ones(configured: Settings) -> None:
    known = ", ".join(sorted(REGISTRY))
    with pytest.raises(ConfigurationError, match=f"INTEGRATIONS: unknown nowhere; known are {known}"):
        build(("schwab", "nowhere"), configured)


@pytest.mark.deep
@pytest.mark.parametrize(("name", "settings"), [("SCHWAB_BASE_URL", SchwabSettings), ("PLAID_BASE_URL", PlaidSettings)])
def test_base_url_without_tls_is_refused_by_name_and_not_shown(
    configured: Settings, monkeypatch: pytest.MonkeyPatch, name: str, settings: type
) -> None:
    monkeypatch.setenv(name, "http://evil.test")

    with pytest.raises(ConfigurationError, match=name) as caught:
        load(settings)

    assert "evil" not in str(caught.value)


@pytest.mark.deep
def test_settings_do_not_show_their_secrets(configured: Settings) -> None:
    assert "SECRETWORD" not in repr((load(SchwabSettings), load(PlaidSettings)))


def test_api_refuses_a_base_url_without_tls() -> None:
    with pytest.raises(ConfigurationError):
        Api("http://evil.test", name="x", total_seconds=1, max_bytes=1)
