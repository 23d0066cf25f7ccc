"""Traces of tasks, sent over OTLP if OTEL_EXPORTER_OTLP_ENDPOINT is set; otherwise OpenTelemetry is not imported.

A span says which task ran, when, for how long, and whether it failed. The text of an error is only in the logs, because
logs are redacted and spans are not.
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
    """Checks the packages before the worker starts its processes, in which an error would only be logged.

    Raises:
        ConfigurationError: an endpoint is set and the packages are missing.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        found = all(find_spec(name) for name in _PACKAGES)
    except ModuleNotFoundError:  # if a parent package is missing
        found = False
    if not found:
        raise ConfigurationError(_MISSING)


def begin(settings: Settings) -> None:
    """Traces this process's tasks from now on. Must be called after the fork, because sending needs its own thread.

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
            span._status = Status(span.status.status_code)  # noqa: SLF001 - there is no public way to omit the text

    exporter = OTLPSpanExporter(endpoint=settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces")
    # Without events, because they would contain the texts of errors.
    _provider = TracerProvider(
        resource=Resource.create({"service.name": "dashtam-worker"}), span_limits=SpanLimits(max_events=0)
    )
    _provider.add_span_processor(WithoutErrorTexts())
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    CeleryInstrumentor().instrument(tracer_provider=_provider)  # type: ignore[no-untyped-call, unused-ignore]


def end() -> None:
    """Sends the spans that were not sent yet."""
    if _provider is not None:
        _provider.shutdown()
