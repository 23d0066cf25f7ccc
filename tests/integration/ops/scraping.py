"""Reading an answer of /metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """Samples of one answer."""

    def __init__(self, answer: bytes) -> None:
        families = text_string_to_metric_families(answer.decode())  # type: ignore[no-untyped-call]
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) == 1, f"{name}{labels}: {found}"
        return float(found[0])
