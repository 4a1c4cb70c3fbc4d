# Training, evaluation and export. One image for both kinds of host: torch brings its CUDA libraries, and runs without a GPU.
#   docker build -f docker/train.Dockerfile -t heatquery-train .
ARG BASE=python:3.11.14-slim-trixie

FROM ${BASE} AS build
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /build
COPY requirements/ requirements/
RUN python3 -m venv /build/uv \
    && /build/uv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
    && /build/uv/bin/uv venv --no-cache --python python3 /opt/heatquery \
    && /build/uv/bin/uv pip sync --no-cache --python /opt/heatquery/bin/python --require-hashes requirements/train.txt
COPY model/ /app/model/
COPY training/ /app/training/
COPY export/ /app/export/
COPY LICENSE /app/
RUN chmod -R a+rX /app

FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="heatquery-train" \
    org.opencontainers.image.description="Trains and exports the detectors that heatquery serves." \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/heatquery /opt/heatquery
COPY --from=build /app /app
RUN install -d -o 10001 -g 10001 /runs
# Caches of matplotlib and torch go to a home that can be written.
ENV PATH=/opt/heatquery/bin:$PATH \
    PYTHONPATH=/app \
    HOME=/tmp
WORKDIR /runs
USER 10001:10001
# Python heeds it as process 1, too, which ignores SIGTERM: a training ends at once, and says how it goes on.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m"]
CMD ["training", "--help"]
