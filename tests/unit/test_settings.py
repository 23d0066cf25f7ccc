"""Bad configuration refuses startup, naming the variable and never its value."""

from __future__ import annotations

import base64
import traceback
from pathlib import Path

import pytest

from tests.support.environment import new_keys
from worker.errors import ConfigurationError
from worker.integrations.schwab.integration import SchwabSettings
from worker.settings import DatabaseSettings, Settings, load

TLS_DATABASE = "postgresql://app:pw@db.example.com/dashtam?sslmode=verify-full"
TLS_REDIS = "rediss://:pw@redis.example.com:6379/0"


@pytest.fixture(autouse=True)
def no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the environment of the test counts."""
    monkeypatch.setenv("DASHTAM_ENV_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@127.0.0.1/dashtam")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1/0")


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("DASHTAM_ENV", "production")
    monkeypatch.setenv("DATABASE_URL", TLS_DATABASE)
    monkeypatch.setenv("REDIS_URL", TLS_REDIS)
    return monkeypatch


def refusal(settings: type[DatabaseSettings] = Settings) -> str:
    """The message of the refusal, having checked that nothing else is in the traceback."""
    with pytest.raises(ConfigurationError) as refused:
        load(settings)
    assert "ValidationError" not in "".join(traceback.format_exception(refused.value))
    return str(refused.value)


@pytest.mark.deep
@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL", "ENCRYPTION_KEYS"])
def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv(variable)

    assert refusal() == f"{variable}: is required"


def test_empty_variable_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCRYPTION_KEYS", "")

    assert refusal() == "ENCRYPTION_KEYS: is required"


def test_all_wrong_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("TICK_SCALE", "0")

    message = refusal()

    assert "REDIS_URL" in message
    assert "TICK_SCALE" in message


_KEY, _OTHER = (base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in (1, 2))


@pytest.mark.deep
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (f"k1:{_KEY[:20]}", "entry 1 is not a key"),
        (f"k1:{_KEY[:-1]}", "entry 1 is not a key"),
        ("k1:not-base64-at-all-but-44-characters-long!!!!", "entry 1 is not a key"),
        (f"k1:{_KEY[:-2]}é=", "entry 1 is not a key"),
        (_KEY, "entry 1 is not of the form id:key"),
        (f":{_KEY}", "entry 1 is not of the form id:key"),
        (f"k1:{_KEY},k2:{_KEY}", "entry 2 repeats"),
        (f"k1:{_KEY},k1:{_OTHER}", "entry 2 repeats"),
        (f"k1:{_KEY},k2:short", "entry 2 is not a key"),
        (" , ", "no key"),
    ],
)
def test_bad_keys_are_refused_by_position_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, keys: str, says: str
) -> None:
    monkeypatch.setenv("ENCRYPTION_KEYS", keys)

    message = refusal()

    assert message.startswith("ENCRYPTION_KEYS: ")
    assert says in message
    assert _KEY[:12] not in message
    assert "short" not in message


def test_keys_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = new_keys("new", "old")
    monkeypatch.setenv("ENCRYPTION_KEYS", keys)

    assert load(Settings).encryption_keys.get_secret_value() == keys


@pytest.mark.deep
@pytest.mark.parametrize("value", ["0", "-1", "abc", "nan", "inf", "1e999", "1,5"])
@pytest.mark.parametrize("variable", ["TICK_SCALE", "SYNC_INTERVAL", "LEASE_SECONDS", "HTTP_TOTAL_SECONDS"])
def test_interval_must_be_a_positive_number(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    assert refusal().startswith(f"{variable}: Input should be")


@pytest.mark.deep
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TASK_TIME_LIMIT", "600"),
        ("TASK_TIME_LIMIT", "480"),
        ("VISIBILITY_TIMEOUT", "540"),
        ("TASK_SOFT_TIME_LIMIT", "540"),
    ],
)
def test_time_limits_stay_below_the_visibility_timeout(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    assert "TASK_SOFT_TIME_LIMIT < TASK_TIME_LIMIT < VISIBILITY_TIMEOUT" in refusal()


@pytest.mark.deep
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"DATABASE_LOCK_SECONDS": "30"}, "DATABASE_LOCK_SECONDS < DATABASE_STATEMENT_SECONDS"),
        ({"DATABASE_STATEMENT_SECONDS": "40"}, "DATABASE_STATEMENT_SECONDS < DATABASE_STEP_SECONDS"),
        ({"DATABASE_STATEMENT_SECONDS": "50", "DATABASE_STEP_SECONDS": "60"}, "below LEASE_SECONDS"),
        ({"LEASE_SECONDS": "40"}, "DATABASE_STEP_SECONDS must be below LEASE_SECONDS"),
        ({"RUN_DEAD_SECONDS": "40"}, "DATABASE_STEP_SECONDS must be below LEASE_SECONDS and RUN_DEAD_SECONDS"),
        ({"DATABASE_CONNECT_SECONDS": "20"}, "DATABASE_CONNECT_SECONDS must be below half"),
    ],
)
def test_limits_of_the_database_fit_each_other_and_the_lease(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], said: str
) -> None:
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)

    assert said in refusal()


def test_http_deadline_stays_below_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_TOTAL_SECONDS", "45")

    assert "HTTP_TOTAL_SECONDS must be below LEASE_SECONDS" in refusal()


@pytest.mark.deep
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://app:hush@127.0.0.1/x"),
        ("DATABASE_URL", "hush"),
        ("REDIS_URL", "http://:hush@127.0.0.1"),
        ("REDIS_URL", "127.0.0.1:6379,password=hush"),
    ],
)
def test_address_of_another_kind_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    message = refusal()

    assert message.startswith(f"{variable}: must begin with")
    assert "hush" not in message


def test_misspelt_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHTAM_ENV", "prod")

    assert refusal().startswith("DASHTAM_ENV: ")


def test_production_with_tls_everywhere_is_accepted(production: pytest.MonkeyPatch) -> None:
    assert load(Settings).environment == "production"


@pytest.mark.deep
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:hush@db.example.com/dashtam",
        "postgresql://app:hush@db.example.com/dashtam?sslmode=prefer",
        "postgresql://app:hush@db.example.com/dashtam?sslmode=disable&application_name=sslmode%3Drequire",
        "postgresql://app:hush-sslmode=require@db.example.com/dashtam",
        "postgresql://app:hush@127.example.com/dashtam",
        "postgresql://app:hush@localhost.example.com/dashtam",
        "postgresql://app:hush@127.0.0.1/dashtam?host=db.example.com",
        "postgresql://app:hush@127.0.0.1,db.example.com/dashtam",
        "postgresql://app:hush@[::1/dashtam",
        "postgresql:///dashtam",
        "redis://:hush@redis.example.com/0",
        "redis://:hush@127.0.0.1.example.com/0",
        "rediss://:hush@redis.example.com/0?ssl_cert_reqs=none",
        "rediss://:hush@redis.example.com/0?ssl_cert_reqs=CERT_NONE",
    ],
)
def test_production_refuses_servers_without_verified_tls_off_loopback(production: pytest.MonkeyPatch, url: str) -> None:
    variable = "DATABASE_URL" if url.startswith("postgresql") else "REDIS_URL"
    production.setenv(variable, url)

    message = refusal()

    assert message.startswith(f"{variable}: ")
    assert "hush" not in message


@pytest.mark.deep
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app@127.0.0.1:5432/dashtam",
        "postgresql://app@localhost/dashtam",
        "postgresql://app:pw@[::1]:5432/dashtam",
        "postgresql://app@/dashtam?host=/run/postgresql",
    ],
)
def test_production_accepts_postgres_on_this_machine(production: pytest.MonkeyPatch, url: str) -> None:
    production.setenv("DATABASE_URL", url)

    assert load(Settings).environment == "production"


def test_production_refuses_failpoints(production: pytest.MonkeyPatch) -> None:
    production.setenv("FAILPOINTS", "after_answer")

    assert refusal() == "FAILPOINTS: not in production"


def test_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = new_keys("filed")
    monkeypatch.delenv("ENCRYPTION_KEYS")
    monkeypatch.setenv("ENCRYPTION_KEYS_FILE", str(_secret(tmp_path, f"{keys}\n")))

    assert load(Settings).encryption_keys.get_secret_value() == keys


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [("hush", 0o644, "readable by everyone"), ("", 0o600, "is empty"), (None, 0, "cannot be read")],
)
def test_unsafe_or_unusable_secret_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, mode: int, says: str
) -> None:
    monkeypatch.delenv("REDIS_URL")
    path = tmp_path / "none" if content is None else _secret(tmp_path, content, mode)
    monkeypatch.setenv("REDIS_URL_FILE", str(path))

    message = refusal()

    assert message.startswith("REDIS_URL_FILE: ")
    assert says in message
    assert "hush" not in message


def test_secret_file_that_is_a_directory_or_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path))

    assert refusal() == "REDIS_URL_FILE: it names a directory; name the file in it"

    path = _secret(tmp_path, "")
    path.write_bytes(b"hush \xff\xfe")
    monkeypatch.setenv("REDIS_URL_FILE", str(path))

    assert refusal() == "REDIS_URL_FILE: the file is not UTF-8 text; write it anew"


def test_mark_that_an_editor_put_in_front_of_a_secret_file_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = new_keys("filed")
    monkeypatch.delenv("ENCRYPTION_KEYS")
    monkeypatch.setenv("ENCRYPTION_KEYS_FILE", str(_secret(tmp_path, f"\ufeff{keys}\r\n")))

    assert load(Settings).encryption_keys.get_secret_value() == keys


def test_secret_set_in_both_ways_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(_secret(tmp_path, "redis://127.0.0.1/1")))

    assert refusal() == "REDIS_URL: the environment sets REDIS_URL_FILE, too; take out one of them"


@pytest.mark.deep
def test_env_file_may_name_secret_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(f"REDIS_URL_FILE={_secret(tmp_path, 'redis://127.0.0.1/7')}\n")
    monkeypatch.setenv("DASHTAM_ENV_FILE", str(env_file))
    monkeypatch.delenv("REDIS_URL")

    assert load(Settings).redis_url.get_secret_value() == "redis://127.0.0.1/7"

    env_file.write_text(f"{env_file.read_text()}REDIS_URL=redis://127.0.0.1/8\n")

    assert refusal() == "REDIS_URL: the .env file sets REDIS_URL_FILE, too; take out one of them"


@pytest.mark.deep
def test_environment_counts_before_the_env_file_whichever_way_a_secret_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / ".env"
    monkeypatch.setenv("DASHTAM_ENV_FILE", str(env_file))
    env_file.write_text(f"REDIS_URL_FILE={tmp_path / 'none'}\n")

    assert load(Settings).redis_url.get_secret_value() == "redis://127.0.0.1/0"

    env_file.write_text("REDIS_URL=redis://127.0.0.1/8\n")
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("REDIS_URL_FILE", str(_secret(tmp_path, "redis://127.0.0.1/1")))

    assert load(Settings).redis_url.get_secret_value() == "redis://127.0.0.1/1"


@pytest.mark.deep
def test_blanks_around_a_secret_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = new_keys("k1")
    monkeypatch.setenv("ENCRYPTION_KEYS", f" {keys}\n")
    monkeypatch.setenv("SCHWAB_APP_KEY", "key\n")
    monkeypatch.setenv("SCHWAB_APP_SECRET", "\tsecret ")
    monkeypatch.setenv("SCHWAB_REDIRECT_URI", "https://127.0.0.1")

    assert load(Settings).encryption_keys.get_secret_value() == keys
    assert load(SchwabSettings).app_key.get_secret_value() == "key"
    assert load(SchwabSettings).app_secret.get_secret_value() == "secret"


def test_secret_of_blanks_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHWAB_APP_KEY", " \n")
    monkeypatch.setenv("SCHWAB_APP_SECRET", "secret")
    monkeypatch.setenv("SCHWAB_REDIRECT_URI", "https://127.0.0.1")

    assert refusal(SchwabSettings) == "SCHWAB_APP_KEY: is required"


def test_values_of_secrets_are_not_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hush@127.0.0.1/dashtam")

    assert "hush" not in repr(load(Settings))


def test_migrations_need_the_database_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "ENCRYPTION_KEYS"):
        monkeypatch.delenv(name)

    assert load(DatabaseSettings).database_url.get_secret_value().startswith("postgresql+psycopg://")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"NOTICE_CHANNELS": "pigeon"}, "NOTICE_CHANNELS: "),
        ({"NOTICE_CHANNELS": "email"}, "NOTICE_CHANNELS: email needs"),
        (
            {
                "NOTICE_CHANNELS": "email",
                "SMTP_HOST": "mail.example.com",
                "NOTICE_FROM": "a@b.c",
                "SMTP_SECURITY": "none",
            },
            "SMTP_SECURITY: ",
        ),
        ({"NOTICE_CHANNELS": "webhook"}, "NOTICE_CHANNELS: webhook needs"),
        (
            {"NOTICE_CHANNELS": "webhook", "WEBHOOK_URL": "http://hooks.example.com", "WEBHOOK_SECRET": "hush"},
            "WEBHOOK_URL: ",
        ),
    ],
)
def test_channel_that_could_not_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    message = refusal()

    assert message.startswith(says)
    assert "hush" not in message
    assert "pigeon" not in message


def _secret(directory: Path, content: str, mode: int = 0o600) -> Path:
    path = directory / "secret"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_every_variable_can_be_a_file_of_the_credentials_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIR", str(tmp_path))
    for name, value in {"schwab_app_key": "a-key", "schwab_app_secret": "a-secret", "schwab_redirect_uri": ""}.items():
        (tmp_path / name).write_text(f"{value}\n" if value else "")
        (tmp_path / name).chmod(0o640)
    monkeypatch.setenv("SCHWAB_APP_KEY", "of the environment")

    with pytest.raises(ConfigurationError, match=r"^SCHWAB_REDIRECT_URI: is required$"):
        load(SchwabSettings)
    (tmp_path / "schwab_redirect_uri").write_text("https://127.0.0.1\n")
    loaded = load(SchwabSettings)

    assert loaded.client == ("of the environment", "a-secret")
    assert loaded.redirect_uri == "https://127.0.0.1"


def test_file_of_the_credentials_directory_that_everyone_can_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIR", str(tmp_path))
    (tmp_path / "schwab_app_secret").write_text("a-secret")
    (tmp_path / "schwab_app_secret").chmod(0o644)

    with pytest.raises(ConfigurationError, match="schwab_app_secret: the file is readable by everyone"):
        load(SchwabSettings)


@pytest.mark.parametrize(
    "url",
    [
        "http://dashtam.example",
        "dashtam.example",
        "https://",
        "https://a@b.example",
        "https://b.example/?a=1",
        "https://[",
    ],
)
def test_public_address_that_cannot_be_used_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PUBLIC_URL", url)

    with pytest.raises(ConfigurationError, match="WEB_PUBLIC_URL"):
        load(Settings)


@pytest.mark.parametrize("url", ["https://dashtam.example/", "http://127.0.0.1:8000"])
def test_hooks_go_to_the_public_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PUBLIC_URL", url)

    assert load(Settings).hook_url("toy") == f"{url.rstrip('/')}/webhooks/toy"
