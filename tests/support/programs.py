"""Which variables each program reads, by the code: what compose and the chart must hand to it."""

from __future__ import annotations

from worker.integrations.registry import REGISTRY
from worker.process.redis_names import QUEUES
from worker.settings import DatabaseSettings, Settings
from worker.settings.only import PROGRAMS, variables_of
from worker.settings.parts import ExporterPart, FlowerPart, WebPart

OF_OTHERS = (FlowerPart, ExporterPart, WebPart)
"""Parts of the settings that workers load, as `dashtam doctor` shows them, and do not use."""
NOT_THE_WORKERS = {"MIGRATE_DATABASE_URL", "READONLY_DATABASE_URL"} | {
    variable for part in OF_OTHERS for variable in variables_of(part) - variables_of(DatabaseSettings)
}


def read_by(name: str) -> set[str]:
    """Variables that a service's program reads, without those of files."""
    not_used = {
        "web": NOT_THE_WORKERS - variables_of(WebPart),
        **dict.fromkeys((f"worker-{queue}" for queue in QUEUES), NOT_THE_WORKERS),
    }
    if name in not_used:
        classes = [Settings, *(integration.settings_class for integration in REGISTRY.values())]
    else:
        classes = [{**PROGRAMS, "migrate": DatabaseSettings}[name]]
    found = {variable for one in classes for variable in variables_of(one)}
    found = {variable for variable in found if variable.removesuffix("_FILE") not in found - {variable}}
    return found - not_used.get(name, {"MIGRATE_DATABASE_URL"})
