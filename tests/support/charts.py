"""The chart for Kubernetes, rendered by Helm."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environment import ROOT

CHART = ROOT / "ops/helm/dashtam"
MADE = Path(ROOT, ".helm/bin/helm")
HOSTS = "settings.WEB_HOSTS=api.example.com"
"""The one value that everybody must give."""

Resource = dict[str, Any]


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Helm on the chart: `run("lint", "--strict")`."""
    program = shutil.which("helm") or str(MADE)
    if not Path(program).exists():
        pytest.fail(f"Helm is not there. Run: make {MADE.relative_to(ROOT)}")
    names = ["dashtam"] if command == "template" and "--name-template" not in arguments else []
    argv = [program, command, *names, str(CHART), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def render(*values: str) -> list[Resource]:
    """What the chart makes with these values, for example `autoscaling.mode=keda`."""
    done = run("template", *_set((HOSTS, *values)))
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if resource]


def refused(*values: str) -> str:
    """Why the chart refuses these values."""
    done = run("template", *_set(values))
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def _set(values: Iterable[str]) -> list[str]:
    return [word for value in values for word in ("--set-string" if "settings." in value else "--set", value)]


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """The pod template of each component."""
    return {
        component(resource): resource["spec"]["template"] for resource in resources if "template" in resource["spec"]
    }


def component(resource: Resource) -> str:
    """For example `worker-sync`."""
    return str(resource["metadata"]["labels"]["app.kubernetes.io/component"])


def containers(resources: list[Resource]) -> dict[str, Resource]:
    """Each container, as `worker-sync/exporter`."""
    return {
        f"{name}/{container['name']}": container
        for name, pod in pods(resources).items()
        for container in pod["spec"]["containers"]
    }


def files(pod: Resource, container: Resource) -> dict[str, str]:
    """The files of secrets that a container sees: name of the file, and key in the Secret `dashtam`."""
    (mount,) = (mount for mount in container["volumeMounts"] if mount["mountPath"] == "/run/credentials")
    (volume,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"])
    return {
        item["path"]: item["key"]
        for source in volume["projected"]["sources"]
        for item in source["secret"].get("items", [])
    }
