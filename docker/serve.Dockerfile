# The service, for one kind of host: TARGET=cpu or TARGET=gpu. docs/deploy.md says how to build, pin and run it.
#   docker build -f docker/serve.Dockerfile --build-arg TARGET=cpu -t heatquery:cpu .
ARG TARGET=cpu
ARG CPU_BASE=python:3.11.14-slim-trixie
ARG GPU_BASE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

FROM ${CPU_BASE} AS base-cpu
FROM ${GPU_BASE} AS base-gpu

# hadolint ignore=DL3006 # one of the two above
FROM base-${TARGET} AS base
ARG TARGET
ARG TENSORRT=10.13.3.9-1+cuda13.0
# hadolint ignore=DL3008 # Python's patch release is what the pinned Ubuntu has: its archive keeps no older one
RUN if [ "${TARGET}" = gpu ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
            "libnvinfer10=${TENSORRT}" "libnvinfer-plugin10=${TENSORRT}" "libnvonnxparsers10=${TENSORRT}" \
        && rm -rf /var/lib/apt/lists/*; \
    fi

FROM base AS build
ARG TARGET
# Those of the base, so that a company's own authority can be added there.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /build
COPY requirements/ requirements/
RUN python3 -m venv /build/uv \
    && /build/uv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
    && /build/uv/bin/uv venv --no-cache --python python3 /opt/heatquery \
    && case "${TARGET}" in gpu) file=serve-gpu ;; *) file=serve ;; esac \
    && /build/uv/bin/uv pip sync --no-cache --python /opt/heatquery/bin/python --require-hashes "requirements/${file}.txt"
# Tests of packages and converters of models never run here. Byte code need not be compared with its source: nothing is
# written once the container runs.
WORKDIR /opt/heatquery/lib
RUN find . -type d -name tests -prune -exec rm -r {} + \
    && rm -r python3*/site-packages/onnxruntime/quantization \
        python3*/site-packages/onnxruntime/tools \
        python3*/site-packages/onnxruntime/transformers \
    && /opt/heatquery/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/heatquery/lib
COPY service/ /app/service/
COPY LICENSE /app/
RUN /opt/heatquery/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app \
    && chmod -R a+rX /app

FROM base
ARG REVISION=unknown
LABEL org.opencontainers.image.title="heatquery" \
    org.opencontainers.image.description="Finds tiny objects in aerial pictures, and shows with a heat map why it found them." \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/heatquery /opt/heatquery
COPY --from=build /app /app
# For volumes, which take over the owner of the place where they are first mounted.
RUN install -d -m 700 -o 10001 -g 10001 /var/lib/heatquery/scenes /var/cache/heatquery/engines
ENV PATH=/opt/heatquery/bin:$PATH \
    PYTHONPATH=/app \
    HEATQUERY_HOST=0.0.0.0
WORKDIR /app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('HEATQUERY_PORT', '8000') + '/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
