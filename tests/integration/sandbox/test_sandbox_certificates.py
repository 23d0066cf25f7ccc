from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.sandbox import SandboxProcess

pytestmark = pytest.mark.deep


def test_bad_certificate_can_be_served(tmp_path: Path) -> None:
    certificate, key = expired_certificate(tmp_path)
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


def expired_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now - timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return certificate, secret
