# Targets: `worker` (default), for workers, beat, Flower, exporter and the command line; `tests`, with all that tests and
# the demonstration need. Both run as uid 10001 on a read-only root. The base image is pinned by the digest of its index,
# which covers all platforms; a newer one is a change of this line.

FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base
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
COPY pyproject.toml requirements.lock ops/lock_part.py /build/
# No source is built here: what it is built with would not be of the lock.
RUN python -m venv /opt/venv \
    && python /build/lock_part.py /build/requirements.lock --worker /build/pyproject.toml tracing > /build/worker.lock \
    && pip install --require-hashes --no-deps --only-binary :all: -r /build/worker.lock
COPY pyproject.toml README.md LICENSE /build/app/
COPY worker /build/app/worker
COPY schedules /build/app/schedules
RUN python -m venv /build/tools \
    && python /build/lock_part.py /build/requirements.lock --only setuptools > /build/tools.lock \
    && /build/tools/bin/python -m pip install --require-hashes --no-deps --only-binary :all: -r /build/tools.lock \
    && /build/tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheels /build/app \
    && pip install --no-deps --no-index /build/wheels/*.whl \
    && python -m compileall -q /opt/venv

FROM base AS tests-packages
COPY requirements.lock ops/environment.py ops/lock_part.py /build/
RUN python /build/environment.py /opt/venv --lock /build/requirements.lock

FROM base AS tests
COPY --from=tests-packages /opt/venv /opt/venv
COPY . /app
RUN uv pip install --python /opt/venv/bin/python --no-deps --no-build-isolation --editable . && install -d -o dashtam -g dashtam /app/.dashtam
ENV COVERAGE_FILE=/tmp/.coverage \
    HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
USER 10001:10001
CMD ["python", "-m", "pytest", "-p", "no:cacheprovider", "--cov"]

FROM base AS worker
COPY --from=worker-packages /opt/venv /opt/venv
ENV DASHTAM_HOME=/var/lib/dashtam
VOLUME ["/var/lib/dashtam"]
USER 10001:10001
ENTRYPOINT []
CMD ["dashtam", "--help"]
