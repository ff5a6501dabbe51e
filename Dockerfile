# The service, without torch:       docker build -t nelbo .
# The training, which needs torch:  docker build -t nelbo-training --target training .
# A release names it by digest too: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…  (docs/deploy.md).
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /src
COPY requirements requirements
# Of what a lock names, only the files whose digest it names, and wheels alone: no code of theirs runs during a build.
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-deps --only-binary :all: --require-hashes -r requirements/build.txt
# Both images get the environment at the path it was made at, since its scripts name it. pip stays behind.
RUN python -m venv --without-pip /opt/nelbo

FROM build AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY nelbo nelbo
COPY service service
COPY training training
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM build AS build-training
RUN /opt/build/bin/pip --python /opt/nelbo/bin/python install --report /tmp/locked.json \
      --no-deps --only-binary :all: --require-hashes -r requirements/training.txt
# The one library without a digest here, since it depends on the build. CUDA's on Linux, several GB, unless the index
# that pip asks has another. To choose: --build-arg TORCH='torch==2.13.0 --index-url URL-OF-YOUR-BUILD', or a URL of the
# very file that ends in #sha256=DIGEST.
ARG TORCH=torch==2.13.0
COPY constraints.txt ./
# hadolint ignore=SC2086  # the argument may be a requirement and options
RUN /opt/build/bin/pip --python /opt/nelbo/bin/python install --report /tmp/torch.json -c constraints.txt ${TORCH}
COPY --from=wheel /dist /dist
COPY pyproject.toml ./
COPY supply supply
RUN /opt/build/bin/pip --python /opt/nelbo/bin/python install --report /tmp/nelbo.json --no-deps --no-index /dist/*.whl \
 && /opt/build/bin/python -m supply.sbom /opt/nelbo/bin/python --output /opt/nelbo/sbom.cdx.json \
      --reports /tmp/locked.json /tmp/torch.json /tmp/nelbo.json

FROM build AS build-service
# For bodies in CSV and Arrow, which the service reads where pyarrow is installed:
#   --build-arg ALSO=pyarrow
ARG ALSO=
RUN /opt/build/bin/pip --python /opt/nelbo/bin/python install --report /tmp/locked.json \
      --no-deps --only-binary :all: --require-hashes -r requirements/service.txt ${ALSO:+-r "requirements/${ALSO}.txt"}
COPY --from=wheel /dist /dist
COPY pyproject.toml ./
COPY supply supply
# Without the libraries' own tests, 17 MB. With bytecode that is never checked against its source: a start writes
# nothing and asks no file for its time.
RUN /opt/build/bin/pip --python /opt/nelbo/bin/python install --report /tmp/nelbo.json --no-deps --no-index /dist/*.whl \
 && /opt/build/bin/python -m supply.sbom /opt/nelbo/bin/python --output /opt/nelbo/sbom.cdx.json \
      --reports /tmp/locked.json /tmp/nelbo.json \
 && find /opt/nelbo/lib -type d -name tests -prune -exec rm -r {} + \
 && /opt/nelbo/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/nelbo/lib

FROM ${PYTHON_IMAGE} AS run
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nelbo" \
      org.opencontainers.image.description="Calibrated anomaly scores for records" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENV PATH=/opt/nelbo/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    NELBO_MODELS=/models
# The demo model, which a folder mounted at /models replaces. Owned by the user, so that a new volume, which
# takes contents and owner from here, can be written by the training; and one at /keys by `nelbo keys`.
RUN install -d -o 10001 -g 10001 /models && install -d -m 700 -o 10001 -g 10001 /keys
COPY --chown=10001:10001 models/README.md /models/README.md
COPY --chown=10001:10001 models/machines /models/machines
USER 10001:10001

FROM run AS training
LABEL org.opencontainers.image.title="nelbo-training"
COPY --from=build-training /opt/nelbo /opt/nelbo
WORKDIR /data
ENTRYPOINT ["nelbo"]
CMD ["--help"]

# The last stage: what a build without --target gives.
FROM run AS service
COPY --from=build-service /opt/nelbo /opt/nelbo
ENV NELBO_HOST=0.0.0.0 \
    NELBO_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', int(os.environ['NELBO_PORT']), timeout=2); c.request('GET', '/healthz/ready'); sys.exit(c.getresponse().status != 200)"]
# Not `nelbo serve`: the process whose lines are all JSON, and which starts without a model too and says so.
ENTRYPOINT ["python", "-P", "-m", "service"]
