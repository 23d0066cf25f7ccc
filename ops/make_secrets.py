"""Makes what docker-compose.yml reads from ./secrets: `python ops/make_secrets.py [DIRECTORY]`.

Passwords, an encryption key, Redis's access list, and a private certificate authority with certificates for Postgres,
Redis and the HTTP API. What exists is kept, so it may run again; certificates last ten years and can be deleted and
made anew. What only a provider can give has an empty file in `credentials/`, named like its variable: fill them, or
leave the integration out of INTEGRATIONS.

Run it as root, or hand the files over afterwards as it says: containers read them through their group.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from worker.integrations.registry import REGISTRY

GROUP = 10001
"""The group that all containers run in."""

TEN_YEARS = timedelta(days=3650)

UNUSED_KEY_USAGES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)


class Secrets:
    """A directory of secrets, each made once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.made: list[str] = []

    def kept(self, name: str, make: Callable[[], str]) -> str:
        """The secret of that name, made when there is none."""
        path = self._directory / name
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440), "w") as file:
                file.write(make())
            self.made.append(name)
        return path.read_text()

    def hand_over(self) -> bool:
        """Gives the files to root and the containers' group. Returns whether this process may do that."""
        if os.geteuid() != 0:
            return False
        for path in (self._directory, *self._directory.rglob("*")):
            os.chown(path, 0, GROUP)
            path.chmod(0o750 if path.is_dir() else 0o440)
        return True


def make(directory: Path) -> Secrets:
    """Everything that the compose file names under `secrets`."""
    store = Secrets(directory)
    owner = store.kept("postgres_password", _password)
    roles = json.loads(
        store.kept("database_roles", lambda: json.dumps({role: _password() for role in ("migrate", "app", "readonly")}))
    )
    redis = store.kept("redis_password", _password)
    verify = "sslmode=verify-full&sslrootcert=/run/secrets/tls_ca"
    store.kept("migrate_database_url", lambda: f"postgresql://dashtam:{owner}@postgres/dashtam?{verify}")
    store.kept("database_url", lambda: f"postgresql://dashtam_app:{roles['app']}@postgres/dashtam?{verify}")
    store.kept(
        "readonly_database_url", lambda: f"postgresql://dashtam_readonly:{roles['readonly']}@postgres/dashtam?{verify}"
    )
    store.kept("readonly_password", lambda: roles["readonly"])  # of Grafana, which takes it alone
    trust = "ssl_cert_reqs=required&ssl_ca_certs=/run/secrets/tls_ca"
    store.kept("redis_url", lambda: f"rediss://dashtam:{redis}@redis:6379/0?{trust}")
    store.kept("redis_acl", lambda: _redis_acl(redis))
    store.kept("encryption_keys", lambda: f"k1:{Fernet.generate_key().decode()}")
    store.kept("flower_password", _password)
    store.kept("grafana_password", _password)
    _credentials(directory, store)
    _certificates(store)
    return store


def _credentials(directory: Path, store: Secrets) -> None:
    """A file for each variable that an installed integration cannot do without."""
    inside = Secrets(directory / "credentials")
    for integration in REGISTRY.values():
        settings = integration.settings_class
        prefix = str(settings.model_config.get("env_prefix") or "").lower()
        for name, field in settings.model_fields.items():
            if field.is_required():
                before = directory / f"{prefix}{name}"  # where it was up to 0.2
                inside.kept(f"{prefix}{name}", before.read_text if before.exists() else str)
    store.made += [f"credentials/{name}" for name in inside.made]


def _password() -> str:
    return secrets.token_urlsafe(24)


def _redis_acl(password: str) -> str:
    digest = hashlib.sha256(password.encode()).hexdigest()
    return (
        "user default off\n"
        f"user dashtam on #{digest} ~* &* +@all -@admin -@dangerous +info\n"
        "user health on nopass -@all +ping\n"  # the container asks itself whether it lives
    )


def _certificates(store: Secrets) -> None:
    authority_key = _key(store.kept("tls_ca_key", _new_key))
    authority = x509.load_pem_x509_certificate(
        store.kept("tls_ca", lambda: _certificate("dashtam", authority_key, authority_key, None)).encode()
    )
    for host in ("postgres", "redis", "web"):
        key = _key(store.kept(f"{host}_key", _new_key))
        store.kept(f"{host}_certificate", partial(_certificate, host, key, authority_key, authority))


def _new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SystemExit("error: a key in this directory was not made here; use another directory")
    return key


def _certificate(
    host: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    is_authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + TEN_YEARS)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                **dict.fromkeys(UNUSED_KEY_USAGES, False),
            ),
            critical=True,
        )
    )
    if not is_authority:
        names = [x509.DNSName(host), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def main() -> None:
    """Makes what is missing and says what to do next."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "secrets")
    store = make(directory)
    sys.stdout.write(f"made {len(store.made)} files in {directory}: {', '.join(store.made) or 'all were there'}\n")
    if not store.hand_over():
        sys.stdout.write(f"now: sudo chown -R root:{GROUP} {directory} && sudo chmod -R u=rX,g=rX,o= {directory}\n")


if __name__ == "__main__":
    main()
