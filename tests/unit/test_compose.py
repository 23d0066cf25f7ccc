"""What docker-compose.yml, Dockerfile and Procfile promise: nothing as root, no secret inside, time to stop, health."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import NOT_THE_WORKERS, read_by
from worker.app import app
from worker.integrations.registry import REGISTRY
from worker.process.redis_names import QUEUES
from worker.settings import Settings
from worker.settings.only import PROGRAMS
from worker.settings.secret_files import CREDENTIALS_DIR

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"migrate", "tests"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
PROCFILE = dict(
    re.findall(r"^([a-z]+): (.*)$", (ROOT / "Procfile").read_text(), re.MULTILINE),
)


@pytest.mark.deep
@pytest.mark.parametrize("name", SERVICES)
def test_service_is_hardened(name: str) -> None:
    service = SERVICES[name]

    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES.keys() - ONE_SHOT)
def test_service_says_whether_it_is_well_and_may_end_in_peace(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] in ("unless-stopped", "no")
    assert "stop_grace_period" in SERVICES[name]


@pytest.mark.parametrize("name", [*(f"worker-{queue}" for queue in QUEUES), "beat"])
def test_probe_looks_at_the_file_that_the_process_touches(name: str) -> None:
    file = SERVICES[name]["environment"]["ALIVE_FILE"]

    assert SERVICES[name]["healthcheck"]["test"][1] == f"find {file} -mmin -3 | grep -q ."
    assert str(Path(file).parent) in SERVICES[name]["tmpfs"], "a file of another start must not be taken for this one's"


@pytest.mark.parametrize("queue", QUEUES)
def test_each_queue_has_a_worker_that_outlasts_its_soft_shutdown(queue: str) -> None:
    worker = SERVICES[f"worker-{queue}"]
    grace = int(worker["stop_grace_period"].removesuffix("s"))

    assert f"--queues={queue}" in worker["command"]
    assert grace > Settings.model_fields["soft_shutdown_seconds"].default + 10


def test_ports_are_published_on_loopback_alone() -> None:
    published = [substituted(port, {}) for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_secret_is_inline() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|_URL")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
                assert str(value).removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"


OF_THE_CONTAINER = {"DASHTAM_HOME", "ALIVE_FILE"} | {
    f"{of}_{what}" for of in ("FLOWER", "EXPORTER", "WEB") for what in ("ADDRESS", "PORT")
}
"""Fixed by image or container; addresses and ports say where the host publishes what listens in the container."""


OWN = (*PROGRAMS, "web", "migrate", *(f"worker-{queue}" for queue in QUEUES))
DOTENV = {name: f"of-{name}" for name in re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", ENV_EXAMPLE, re.MULTILINE)}


def names_in(env_file: str) -> list[str]:
    """What an env_file of names without values lists: each is taken from `.env`, or left out when that has none."""
    return [line for line in (ROOT / env_file).read_text().splitlines() if line and not line.startswith("#")]


def rendered(name: str, dotenv: dict[str, str]) -> dict[str, str]:
    """The environment of a service's container, as Compose makes it with this `.env`."""
    service = SERVICES[name]
    inherited = {variable for file in service.get("env_file", []) for variable in names_in(file)}
    written = {variable: substituted(str(value), dotenv) for variable, value in service.get("environment", {}).items()}
    return {variable: dotenv[variable] for variable in inherited if variable in dotenv} | written


def substituted(text: str, dotenv: dict[str, str]) -> str:
    """Compose's `${X:-default}`."""
    return re.sub(r"\$\{([A-Z_]+):-(.*?)\}", lambda found: dotenv.get(found[1]) or found[2], text)


@pytest.mark.deep
@pytest.mark.parametrize("name", OWN)
def test_variables_of_the_env_file_reach_every_service_that_reads_them(name: str) -> None:
    given = rendered(name, DOTENV)

    for variable in sorted(read_by(name) & DOTENV.keys() - OF_THE_CONTAINER):
        if f"{variable}_FILE" in given:  # of what compose itself runs: `ops/make_secrets.py` has made it
            assert given[f"{variable}_FILE"].removeprefix("/run/secrets/") in SERVICES[name]["secrets"], variable
            assert variable not in given, "it would be set twice"
        else:
            assert given.get(variable) == f"of-{variable}", variable


@pytest.mark.deep
@pytest.mark.parametrize("name", OWN)
def test_each_process_is_given_its_own_variables_and_no_others(name: str) -> None:
    own = read_by(name)

    given = {variable if variable in own else variable.removesuffix("_FILE") for variable in rendered(name, DOTENV)} - {
        CREDENTIALS_DIR
    }

    assert given - OF_THE_CONTAINER == own - OF_THE_CONTAINER


@pytest.mark.parametrize("file", sorted((ROOT / "ops/compose").glob("*.env")), ids=lambda path: str(path.name))
def test_file_of_names_is_sorted_and_holds_no_value(file: Path) -> None:
    names = names_in(str(file.relative_to(ROOT)))

    assert names == sorted(set(names))
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in names)
    assert file.read_text().endswith("\n"), "Compose takes a name without a line feed for a mistake"
    assert any(f"ops/compose/{file.name}" in service.get("env_file", []) for service in SERVICES.values())


@pytest.mark.parametrize(
    ("name", "dotenv", "published"),
    [
        ("flower", {}, "127.0.0.1:5555:5555"),
        ("flower", {"FLOWER_PORT": "5999", "FLOWER_ADDRESS": "10.0.0.7"}, "10.0.0.7:5999:5555"),
        ("web", {}, "127.0.0.1:8000:8000"),
        ("web", {"WEB_PORT": "8999", "WEB_ADDRESS": "10.0.0.7"}, "10.0.0.7:8999:8000"),
        ("exporter", {"EXPORTER_PORT": "9999"}, "127.0.0.1:9999:9540"),
        ("prometheus", {"PROMETHEUS_PORT": "9999"}, "127.0.0.1:9999:9090"),
        ("grafana", {"GRAFANA_PORT": "3999"}, "127.0.0.1:3999:3000"),
        ("demo", {"DEMO_FLOWER_PORT": "5999"}, "127.0.0.1:5999:5999"),
    ],
)
def test_ports_of_the_host_are_settings(name: str, dotenv: dict[str, str], published: str) -> None:
    assert [substituted(port, dotenv) for port in SERVICES[name]["ports"]] == [published]


def test_demonstration_prints_the_address_that_the_host_publishes() -> None:
    assert rendered("demo", {})["FLOWER_PORT"] == "5556"
    assert [substituted(port, {}) for port in SERVICES["demo"]["ports"]] == ["127.0.0.1:5556:5556"]


def test_env_example_lists_what_compose_alone_reads_with_its_true_default() -> None:
    settings = {variable for name in OWN for variable in read_by(name)} | NOT_THE_WORKERS
    used = dict(re.findall(r"\$\{([A-Z_]+):-(.*?)\}", (ROOT / "docker-compose.yml").read_text()))

    for name in used.keys() - settings:
        assert re.search(rf"^# {name}={re.escape(used[name])}$", ENV_EXAMPLE, re.MULTILINE), name


def test_no_provider_is_named() -> None:
    text = (ROOT / "docker-compose.yml").read_text().lower()

    assert [key for key in REGISTRY if key in text] == []


@pytest.mark.deep
@pytest.mark.parametrize("name", SERVICES)
def test_workers_and_the_http_api_alone_have_keys_credentials_and_a_role_that_writes(name: str) -> None:
    is_worker = name.startswith("worker-") or name == "web"  # which exchanges codes, and begins links
    service = SERVICES[name]
    mounted = [volume for volume in service.get("volumes", []) if "credentials" in volume]

    assert ({"encryption_keys", "database_url"} <= set(service.get("secrets", []))) is is_worker
    assert bool({"encryption_keys", "database_url"} & set(service.get("secrets", []))) is is_worker
    assert (CREDENTIALS_DIR in service.get("environment", {})) is is_worker
    assert mounted == (["./secrets/credentials:/run/credentials:ro"] if is_worker else [])


@pytest.mark.parametrize("name", PROGRAMS)
def test_procfile_starts_it_with_its_own_variables_alone(name: str) -> None:
    assert PROCFILE[name].startswith(f"python -m worker.settings.only {name} ")


def test_every_secret_that_is_used_is_a_file_that_is_declared() -> None:
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}

    assert used == COMPOSE["secrets"].keys()
    assert all(entry["file"] == f"./secrets/{name}" for name, entry in COMPOSE["secrets"].items())
    assert "secrets/" in (ROOT / ".gitignore").read_text().split()


def test_redis_keeps_what_it_has() -> None:
    config = (ROOT / "ops/redis/redis.conf").read_text()

    assert "appendonly yes" in config
    assert "appendfsync everysec" in config
    assert "maxmemory-policy noeviction" in config
    assert re.search(r"^port 0$", config, re.MULTILINE), "plain text must be off"


def test_postgres_lets_nobody_in_without_encryption() -> None:
    rules = [line.split()[0] for line in (ROOT / "ops/postgres/pg_hba.conf").read_text().splitlines() if line[0] != "#"]

    assert set(rules) == {"local", "hostssl"}


def test_nothing_works_before_the_schema_is_up_to_date() -> None:
    for name in ("worker-refresh", "worker-sync", "worker-upkeep", "web", "beat", "flower", "exporter"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_profiles_are_those_that_are_documented() -> None:
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}

    assert profiles == {"sandbox", "test", "monitoring"}
    assert SERVICES["tests"]["profiles"] == ["test"]


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./secrets/"):  # `ops/make_secrets.py` makes it
                continue
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]


def test_images_have_no_registry_host() -> None:
    for name, service in SERVICES.items():
        assert "." not in service["image"].split("/")[0].split(":")[0], name


def test_images_run_as_nobody_in_particular() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        if stage.split()[2] in ("worker", "tests"):
            assert "USER 10001:10001" in stage
    sources = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - {"base"}
    assert [re.sub(r"[.:@].*", "", source) for source in sources] == ["python"]


def test_build_context_leaves_secrets_out() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert next(line for line in lines if not line.startswith("#")) == "*"
    assert not any(line in ("!.env", "!secrets", "!.dashtam") for line in lines)


def test_copied_files_are_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert source == "." or source.split("/")[0] in allowed, source


@pytest.mark.deep
def test_files_that_tests_read_are_in_the_build_context_of_their_image() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    read = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'\bROOT / "([^"/]+)', path.read_text())
        if (ROOT / name).exists()
    }

    # Tests that ask Git are none of those that the image runs.
    assert read - {".git", "build"} | {path.name for path in ROOT.glob("*.md")} <= allowed


def test_procfile_has_what_a_deployment_needs() -> None:
    assert PROCFILE.keys() == {"refresh", "sync", "upkeep", "web", "beat", "flower", "exporter"}
    for queue in QUEUES:
        assert f"--queues {queue} " in PROCFILE[queue]
    assert {queue["queue"] for queue in app.conf.task_routes.values()} == set(QUEUES)


@pytest.mark.deep
@pytest.mark.parametrize("queue", QUEUES)
def test_procfile_s_workers_have_options_that_celery_knows(queue: str) -> None:
    from celery.bin.worker import worker

    argv = shlex.split(PROCFILE[queue].replace("${REFRESH_PROCESSES:-2}", "2").replace("${SYNC_PROCESSES:-2}", "2"))
    known = {option for parameter in worker.params for option in (*parameter.opts, *parameter.secondary_opts)}

    assert argv[:4] == ["celery", "-A", "worker.app", "worker"]
    assert {word for word in argv[4:] if word.startswith("--")} <= known
