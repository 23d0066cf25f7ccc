"""The chart for Kubernetes: valid, safe, and in agreement with the code."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import tomllib
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from celery.bin.beat import beat
from celery.bin.worker import worker
from sqlalchemy import Engine, text

from tests.support import charts
from tests.support.environment import ROOT
from tests.support.programs import read_by
from worker.integrations.registry import REGISTRY
from worker.process.redis_names import QUEUES
from worker.settings import (
    DatabaseSettings,
    EnvironmentSettings,
    ExporterSettings,
    FlowerSettings,
    QueueSettings,
    Settings,
)
from worker.settings.secret_files import is_secret

ALL = ("autoscaling.mode=keda", "flower.enabled=true")
OLDEST, NEWEST = "1.29", "1.37"
SET_BY_THE_CHART = {"DASHTAM_ENV", "DASHTAM_HOME", "LOG_FORMAT", "ALIVE_FILE", "EXPORTER_GAUGES"} | {
    f"{of}_{what}" for of in ("FLOWER", "EXPORTER", "WEB") for what in ("ADDRESS", "PORT")
}
KEDA = ("ScaledObject", "TriggerAuthentication")

# The parts of KEDA's types that the chart uses (kedacore/keda, apis/keda/v1alpha1).
_SCALED_OBJECT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["scaleTargetRef", "triggers"],
    "properties": {
        "scaleTargetRef": {"type": "object", "required": ["name"]},
        "pollingInterval": {"type": "integer"},
        "minReplicaCount": {"type": "integer", "minimum": 1},
        "maxReplicaCount": {"type": "integer"},
        "fallback": {
            "type": "object",
            "additionalProperties": False,
            "required": ["failureThreshold", "replicas"],
            "properties": {
                "failureThreshold": {"type": "integer", "minimum": 0},
                "replicas": {"type": "integer", "minimum": 0},
                "behavior": {"enum": ["static", "currentReplicas", "currentReplicasIfHigher"]},
            },
        },
        "advanced": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"horizontalPodAutoscalerConfig": {"type": "object", "required": ["behavior"]}},
        },
        "triggers": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["type", "metadata", "authenticationRef"],
                "properties": {
                    "type": {"const": "postgresql"},
                    "metricType": {"const": "AverageValue"},
                    "metadata": {
                        "type": "object",
                        "additionalProperties": {"type": "string"},
                        "required": ["query", "targetQueryValue"],
                    },
                    "authenticationRef": {"type": "object", "required": ["name"]},
                },
            },
        },
    },
}
_TRIGGER_AUTHENTICATION = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "secretTargetRef": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["parameter", "name", "key"],
                "properties": {"parameter": {"const": "connection"}, "name": {}, "key": {}},
            },
        }
    },
}


@functools.cache
def rendered(*values: str) -> list[charts.Resource]:
    return charts.render(*values)


def program_of(name: str) -> str:
    """The program in the container `worker-sync/worker`."""
    component, container = name.split("/")
    return container if container == "exporter" else component


def names(variables: list[dict[str, Any]]) -> set[str]:
    assert len(variables) == len({entry["name"] for entry in variables}), "a variable is set twice"
    return {entry["name"] for entry in variables}


def test_helm_has_nothing_to_say_against_it() -> None:
    done = charts.run("lint", "--strict", "--set", charts.HOSTS)

    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", [(), ALL, ("autoscaling.mode=hpa",)], ids=["as it is", "all", "hpa"])
def test_it_is_valid_by_kubernetes_schemas(version: str, values: tuple[str, ...]) -> None:
    seen = set()
    for resource in rendered(*values):
        if resource["kind"] not in KEDA:
            assert kubernetes_validate.validate(resource, version, strict=True) == version
            seen.add(resource["kind"])

    assert {"StatefulSet", "Deployment", "Service", "PodDisruptionBudget", "Job"} <= seen


def test_what_keda_reads_has_its_shape() -> None:
    specs = {kind: [r["spec"] for r in rendered(*ALL) if r["kind"] == kind] for kind in KEDA}

    assert len(specs["ScaledObject"]) == 2
    for spec in specs["ScaledObject"]:
        jsonschema.validate(spec, _SCALED_OBJECT)
    assert len(specs["TriggerAuthentication"]) == 1
    jsonschema.validate(specs["TriggerAuthentication"][0], _TRIGGER_AUTHENTICATION)


def test_keda_s_queries_are_answered_with_one_number(engine: Engine) -> None:
    queries = [
        trigger["metadata"]["query"]
        for resource in rendered(*ALL)
        if resource["kind"] == "ScaledObject"
        for trigger in resource["spec"]["triggers"]
    ]

    with engine.connect() as connection:
        assert [connection.execute(text(query)).scalar_one() for query in queries] == [0, 0]


@pytest.mark.parametrize("mode", ["hpa", "keda"])
def test_what_is_scaled_has_no_number_of_its_own(mode: str) -> None:
    resources = rendered(f"autoscaling.mode={mode}")
    targets = {
        resource["spec"]["scaleTargetRef"]["name"]
        for resource in resources
        if resource["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }

    sets = {r["metadata"]["name"]: r["spec"] for r in resources if r["kind"] == "StatefulSet"}
    assert targets == {"dashtam-worker-refresh", "dashtam-worker-sync", "dashtam-web"}
    assert {name for name, spec in sets.items() if "replicas" not in spec} == targets


def test_everything_that_code_reads_can_be_set_and_each_program_gets_its_own_alone() -> None:
    secret = _names_of(secrets=True)
    settable = (set().union(*map(read_by, _programs())) - secret) - SET_BY_THE_CHART
    resources = rendered(*ALL, *(f"settings.{name}=of-{name}" for name in sorted(settable - {"WEB_HOSTS"})))

    for name, container in charts.containers(resources).items():
        pod = charts.pods(resources)[name.split("/")[0]]
        own = read_by(program_of(name))
        files = {file.upper() for file in charts.files(pod, container)} - {"TLS_CA", "DATABASE_ROLES"}
        others = {"CREDENTIALS_DIR"} | SET_BY_THE_CHART
        assert names(container["env"]) - others == own - secret - others, name
        assert files == own & secret & _IN_THE_MAIN_SECRET, name
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        assert all(value == f"of-{key}" for key, value in given.items() if key in settable - {"WEB_HOSTS"}), name


_IN_THE_MAIN_SECRET = {
    *("REDIS_URL", "BROKER_URL", "DATABASE_URL", "ENCRYPTION_KEYS"),
    *("READONLY_DATABASE_URL", "FLOWER_PASSWORD"),
}


def _programs() -> list[str]:
    return ["beat", "flower", "exporter", "web", "migrate", *(f"worker-{queue}" for queue in QUEUES)]


def _names_of(*, secrets: bool) -> set[str]:
    classes: list[type[EnvironmentSettings]] = [
        *(Settings, QueueSettings, FlowerSettings, ExporterSettings, DatabaseSettings),
        *(integration.settings_class for integration in REGISTRY.values()),
    ]
    return {
        str(field.validation_alias or f"{one.model_config.get('env_prefix') or ''}{name}").upper()
        for one in classes
        for name, field in one.model_fields.items()
        if is_secret(field) is secrets
    }


def test_secret_of_an_integration_reaches_workers_and_the_http_api_alone() -> None:
    resources = rendered(*ALL)

    has = {
        component
        for component, pod in charts.pods(resources).items()
        if "dashtam-credentials" in json.dumps(pod["spec"]["volumes"])
    }
    assert has == {*(f"worker-{queue}" for queue in QUEUES), "web"}
    for component in has:
        volumes = charts.pods(resources)[component]["spec"]["volumes"]
        (volume,) = (one for one in volumes if "dashtam-credentials" in json.dumps(one))
        assert volume["name"] == "credentials", "the exporter's volume is another one"


@pytest.mark.parametrize("name", sorted(_names_of(secrets=True)))
def test_secret_among_the_settings_is_refused(name: str) -> None:
    pattern = re.search(r'regexMatch "(.+?)" \$name', (charts.CHART / "templates/_helpers.tpl").read_text())

    assert pattern is not None
    assert re.search(pattern[1], name)


def test_no_other_setting_is_taken_for_a_secret() -> None:
    pattern = re.search(r'regexMatch "(.+?)" \$name', (charts.CHART / "templates/_helpers.tpl").read_text())

    assert pattern is not None
    assert [name for name in sorted(_names_of(secrets=False)) if re.search(pattern[1], name)] == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((), "settings.WEB_HOSTS must name the hosts"),
        ((charts.HOSTS, "settings.SMTP_PASSWORD=x"), "SMTP_PASSWORD is a secret: put it into the Secret"),
        ((charts.HOSTS, "pluginSettings.ACME_SECRET=x"), "ACME_SECRET is a secret: put it into the Secret"),
        ((charts.HOSTS, "pluginSettings.CLAIM_LIMIT=1"), "write it as settings.CLAIM_LIMIT"),
        ((charts.HOSTS, "pluginSettings.DASHTAM_HOME=/x"), "pluginSettings.DASHTAM_HOME is no variable of a plug-in"),
        ((charts.HOSTS, "settings.LOG_LEVLE=x"), "settings.LOG_LEVLE: no program reads it"),
        ((charts.HOSTS, "settings.EXPORTER_GAUGES=true"), "or the chart sets it"),
        ((charts.HOSTS, "settings.SOFT_SHUTDOWN_SECONDS=51"), "it must be at least 61"),
        ((charts.HOSTS, "terminationGracePeriodSeconds=39"), "it must be at least 40"),
        ((charts.HOSTS, "worker.sync.replicas=3"), "additional properties 'worker' not allowed"),
        ((charts.HOSTS, "autoscaling.mode=vpa"), "must be one of 'none', 'hpa', 'keda'"),
        ((charts.HOSTS, "image.digest=abc"), "does not match pattern"),
    ],
)
def test_values_that_cannot_work_are_refused(values: tuple[str, ...], reason: str) -> None:
    assert reason in charts.refused(*values)


def test_large_numbers_stay_as_they_are_written() -> None:
    resources = rendered("settings.WEB_BODY_BYTES=4000000", "flower.enabled=false")
    done = charts.run("template", "--set", charts.HOSTS, "--set", "settings.HTTP_MAX_BYTES=33554432")

    env = charts.containers(resources)["web/web"]["env"]
    assert {"name": "WEB_BODY_BYTES", "value": "4000000"} in env
    assert '{name: HTTP_MAX_BYTES, value: "33554432"}' in done.stdout


def test_variable_of_a_plug_in_reaches_workers_and_the_http_api() -> None:
    resources = rendered("pluginSettings.ACME_BASE_URL=https://acme.example")

    has = {name for name, one in charts.containers(resources).items() if "ACME_BASE_URL" in names(one["env"])}
    assert has == {*(f"worker-{queue}/worker" for queue in QUEUES), "web/web"}


def test_longest_name_of_a_release_leaves_room_for_kubernetes_own_additions() -> None:
    done = charts.run("template", "--set", charts.HOSTS, "--name-template", "a" * 53)

    assert done.returncode == 0, done.stderr
    found = [r["metadata"]["name"] for r in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if r]
    assert max(map(len, found)) <= 63 - len("-1234567890")


def test_nothing_is_root_or_may_write_where_it_should_not() -> None:
    for name, pod in charts.pods(rendered(*ALL)).items():
        security = pod["spec"]["securityContext"]
        assert (security["runAsUser"], security["runAsNonRoot"]) == (10001, True), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "hostPath" not in json.dumps(pod), name
    for name, container in charts.containers(rendered(*ALL)).items():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_secrets_can_be_read_by_the_group_and_not_by_everyone() -> None:
    for name, pod in charts.pods(rendered(*ALL)).items():
        volumes = [volume["projected"] for volume in pod["spec"]["volumes"] if "projected" in volume]
        assert volumes, name
        assert {volume["defaultMode"] for volume in volumes} == {0o440}
        assert pod["spec"]["securityContext"]["fsGroup"] == 10001
        assert pod["spec"]["securityContext"]["runAsGroup"] == 10001


def test_home_that_may_hold_the_only_copy_of_a_token_outlives_its_pod() -> None:
    resources = rendered(*ALL)
    kept = {charts.component(r) for r in resources if r["kind"] == "StatefulSet"}

    assert kept == {*(f"worker-{queue}" for queue in QUEUES), "web"}, "all programs that get answers with tokens"
    for resource in (r for r in resources if r["kind"] == "StatefulSet"):
        assert [claim["metadata"]["name"] for claim in resource["spec"]["volumeClaimTemplates"]] == ["home"]
        assert set(resource["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_worker_has_longer_than_its_soft_shutdown() -> None:
    soft = Settings.model_fields["soft_shutdown_seconds"].default

    for queue in QUEUES:
        assert charts.pods(rendered())[f"worker-{queue}"]["spec"]["terminationGracePeriodSeconds"] >= soft + 10


def test_every_kind_of_pod_has_a_budget_that_lets_nodes_be_emptied() -> None:
    resources = rendered(*ALL)
    budgets = {
        r["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: r["spec"]
        for r in resources
        if r["kind"] == "PodDisruptionBudget"
    }

    assert budgets.keys() == charts.pods(resources).keys() - {"migrate"}
    for name, budget in budgets.items():
        labels = charts.pods(resources)[name]["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items(), name
        assert budget["maxUnavailable"] == 1


def test_there_are_two_beats() -> None:
    (found,) = (r for r in rendered() if r["kind"] == "Deployment" and charts.component(r) == "beat")

    assert found["spec"]["replicas"] == 2


def test_every_command_exists() -> None:
    for name, container in charts.containers(rendered(*ALL)).items():
        command = container["command"]
        if command[0] == "celery":
            assert command[:3] == ["celery", "-A", "worker.app"], name
            options = {option for p in (*worker.params, *beat.params) for option in (*p.opts, *p.secondary_opts)}
            given = {word.partition("=")[0] for word in command[3:] if word.startswith("--")}
            assert given <= options
            assert command[3] == name.split("/")[1]
        elif command[0] == "python":
            assert command[1] == "-m"
            assert importlib.util.find_spec(command[2]), name
        else:
            compose = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)
            same = compose["services"]["migrate"]["command"][2].replace("/run/secrets/", "/run/credentials/")
            assert command == ["sh", "-c", same]


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_has_its_worker(queue: str) -> None:
    command = charts.containers(rendered())[f"worker-{queue}/worker"]["command"]

    assert f"--queues={queue}" in command


def test_probes_look_at_what_the_programs_offer() -> None:
    from worker.web.routes.health import router

    routes = {route.path for route in router.routes}  # type: ignore[attr-defined]
    for name, container in charts.containers(rendered(*ALL)).items():
        if name.endswith(("/worker", "/beat")):
            (alive,) = (entry["value"] for entry in container["env"] if entry["name"] == "ALIVE_FILE")
            assert f"find {alive} -mmin" in container["livenessProbe"]["exec"]["command"][2]
            assert f"find {alive} -mmin" in container["startupProbe"]["exec"]["command"][2]
            assert f"find {alive}.connected -mmin" in container["readinessProbe"]["exec"]["command"][2]
        elif name == "web/web":
            probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
            assert {probe["path"] for probe in probes} == {"/healthz", "/readyz"} & routes
            assert all(probe["httpHeaders"] == [{"name": "Host", "value": "api.example.com"}] for probe in probes)
        elif name != "migrate/migrate":
            path = {"exporter": "/healthz", "flower": "/healthcheck"}[name.split("/")[1]]
            assert container["livenessProbe"]["httpGet"]["path"] == path


def test_one_exporter_alone_asks_postgres() -> None:
    asking = [
        name
        for name, container in charts.containers(rendered(*ALL)).items()
        if {"name": "EXPORTER_GAUGES", "value": "true"} in container["env"]
    ]

    assert asking == ["worker-upkeep/exporter"]


def test_chart_is_of_this_release() -> None:
    chart = yaml.load((charts.CHART / "Chart.yaml").read_text(), Loader=yaml.CSafeLoader)
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert (chart["version"], chart["appVersion"]) == (release, release)
