"""Traces of tasks, sent over OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set; else OpenTelemetry is not imported.

Spans say which task ran when, for how long and whether it failed. What an error said stays in the logs, which are
redacted; spans are not.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from worker.errors import ConfigurationError
from worker.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.instrumentation.celery")
_MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT: traces need more packages; run: pip install 'dashtam-worker[tracing]', "
    "or leave the variable empty"
)

_provider: TracerProvider | None = None


def require(settings: Settings) -> None:
    """Before the worker starts its processes, where an error would only be logged.

    Raises:
        ConfigurationError: an endpoint is set and the packages are missing.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        found = all(find_spec(name) for name in _PACKAGES)
    except ModuleNotFoundError:  # of a package's own parent
        found = False
    if not found:
        raise ConfigurationError(_MISSING)


def begin(settings: Settings) -> None:
    """Traces this process's tasks from now on; call it after the fork, as sending needs a thread of its own.

    Raises:
        ConfigurationError: an endpoint is set and the packages are missing.
    """
    global _provider
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.status import Status
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error

    class WithoutErrorTexts(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            span._status = Status(span.status.status_code)  # noqa: SLF001 - no public way to leave the text out

    exporter = OTLPSpanExporter(endpoint=settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces")
    # Events would hold the texts of errors.
    _provider = TracerProvider(
        resource=Resource.create({"service.name": "dashtam-worker"}), span_limits=SpanLimits(max_events=0)
    )
    _provider.add_span_processor(WithoutErrorTexts())
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    CeleryInstrumentor().instrument(tracer_provider=_provider)  # type: ignore[no-untyped-call, unused-ignore]


def end() -> None:
    """Sends what is left."""
    if _provider is not None:
        _provider.shutdown()
