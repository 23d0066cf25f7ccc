from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import certificate_files
from tests.support.sandbox import SandboxProcess

pytestmark = pytest.mark.deep


def test_bad_certificate_can_be_served(tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path, "127.0.0.1", hours=-1)
    with SandboxProcess("--tls-certificate", str(certificate), "--tls-key", str(key)) as process:
        assert process.base_url.startswith("https://")
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{process.base_url}/schwab/trader/v1/accounts", trust_env=False)
        with httpx.Client(verify=_trusting_nothing(), trust_env=False) as blind:
            assert blind.get(f"{process.base_url}/schwab/trader/v1/accounts").status_code == 401


def _trusting_nothing() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
