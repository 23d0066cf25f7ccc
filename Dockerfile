# Targets: `worker` (default), for workers, beat, Flower, exporter and the command line; `tests`, with all that tests and
# the demonstration need. Both run as uid 10001 on a read-only root.

FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
RUN groupadd --gid 10001 dashtam \
    && useradd --uid 10001 --gid dashtam --home-dir /var/lib/dashtam --shell /usr/sbin/nologin dashtam \
    && install -d -o dashtam -g dashtam -m 0700 /var/lib/dashtam
WORKDIR /app

FROM base AS worker-packages
COPY pyproject.toml requirements.lock ops/runtime_lock.py /build/
RUN python -m venv /opt/venv \
    && python /build/runtime_lock.py /build/pyproject.toml /build/requirements.lock tracing > /build/runtime.lock \
    && pip install --require-hashes --no-deps -r /build/runtime.lock
COPY pyproject.toml README.md LICENSE /build/app/
COPY worker /build/app/worker
COPY schedules /build/app/schedules
RUN python -m venv /build/tools \
    && /build/tools/bin/python -m pip install 'setuptools>=77' wheel \
    && /build/tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheels /build/app \
    && pip install --no-deps --no-index /build/wheels/*.whl \
    && python -m compileall -q /opt/venv

FROM base AS tests-packages
# Packages without a wheel for this Python are compiled here.
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /build/
RUN python -m venv /opt/venv && pip install --require-hashes -r /build/requirements.lock

FROM base AS tests
COPY --from=tests-packages /opt/venv /opt/venv
COPY . /app
RUN pip install --no-deps --no-build-isolation --editable . && install -d -o dashtam -g dashtam /app/.dashtam
ENV COVERAGE_FILE=/tmp/.coverage \
    HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
USER 10001:10001
CMD ["python", "-m", "pytest", "-p", "no:cacheprovider", "--cov"]

FROM base AS worker
COPY --from=worker-packages /opt/venv /opt/venv
COPY flowerconfig.py /app/
ENV DASHTAM_HOME=/var/lib/dashtam
VOLUME ["/var/lib/dashtam"]
USER 10001:10001
ENTRYPOINT []
CMD ["dashtam", "--help"]
