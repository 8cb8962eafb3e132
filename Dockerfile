# One image for every site: `make image` builds it, docs/image.md describes it. The targets:
#   sharder      text in, shards out; no torch
#   trainer-cpu  everything, with torch for CPUs
#   trainer      everything, with torch for NVIDIA GPUs (the default)
# Every set of files is a layer of its own, so that a change of code moves kilobytes and one of a package megabytes.

# The index digest of 24 August 2026, so that the same build runs on the same Debian.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

# --- what every image runs on ---------------------------------------------------------------------------------------
# checkov:skip=CKV_DOCKER_7:the argument has a dated tag and a digest, which the check does not look into
FROM ${BASE_IMAGE} AS system
# tini is PID 1, which reaps. openssh-server: RunPod's exec and port forwarding. Its host keys are made at each start.
# Versions of Debian's packages are not pinned: mirrors drop what a security update replaces, and the build would end.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates openssh-server python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/ssh/ssh_host_* \
    && useradd --uid 10001 --gid 0 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin trainwright \
    && mkdir -p /run/sshd /workspace \
    && python3 -m venv --without-pip /opt/venv
# Everything is compiled already, and nothing may be written beside the code. Of the driver, what computes.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TRAINWRIGHT_ROOT=/workspace TRAINWRIGHT_IN_IMAGE=1
LABEL org.opencontainers.image.title="trainwright" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /opt/trainwright
# -s: an init that is not PID 1, as under Apptainer, still reaps.
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/opt/trainwright/docker/entrypoint.sh"]
CMD ["boot"]
# For docker and podman alone: Kubernetes, RunPod and Apptainer do not read it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["trainwright", "doctor", "--alive"]

# torch.compile builds kernels: a compiler for C and C++, and Python's headers for triton's launcher. What only links
# whole programs, looks for their races and leaks, or puts Python into them, is a tenth of a gigabyte.
FROM system AS system-with-compiler
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ libpython3.11-dev \
    && find /usr/lib '(' -name lto1 -o -name 'lib[alt]san*' -o -name 'libubsan*' ')' -delete \
    && find /usr/lib '(' -name 'libpython*.a' -o -name 'libstdc++.a' -o -name libc.a ')' -delete \
    && rm /usr/bin/*lto-dump* \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

# --- the parts, each built on its own and copied as one layer -------------------------------------------------------
FROM system AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/tools
COPY docker/install.sh /opt/tools/

FROM tools AS torch-cuda
COPY docker/torch-cuda.lock /opt/tools/
RUN /opt/tools/install.sh /opt/tools/torch-cuda.lock

# The CPU build is not on PyPI. A site with a mirror names its own index, or none when pip's configuration has it.
FROM tools AS torch-cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/torch-cpu.lock /opt/tools/
RUN PIP_EXTRA_INDEX_URL="${TORCH_CPU_INDEX}" /opt/tools/install.sh /opt/tools/torch-cpu.lock

FROM tools AS trainer-packages
COPY docker/trainer.lock /opt/tools/
RUN /opt/tools/install.sh /opt/tools/trainer.lock

FROM tools AS sharder-packages
COPY docker/sharder.lock /opt/tools/
RUN /opt/tools/install.sh /opt/tools/sharder.lock

# The rooms as they are, found through one line in the venv; a site may mount newer code over /opt/trainwright.
FROM tools AS code
COPY . /opt/trainwright
RUN python3 -m compileall -qq --invalidation-mode unchecked-hash /opt/trainwright \
    && echo /opt/trainwright > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/trainwright.pth" \
    && printf '#!/bin/sh\nexec /opt/venv/bin/python -m infra "$@"\n' > /opt/venv/bin/trainwright \
    && chmod -R go=u-w,a+rX /opt/trainwright && chmod 755 /opt/venv/bin/trainwright

# --- the images -----------------------------------------------------------------------------------------------------
FROM system AS sharder
COPY --from=sharder-packages /opt/venv /opt/venv
COPY --from=code /opt/venv /opt/venv
COPY --from=code /opt/trainwright /opt/trainwright
ARG VERSION=unknown REVISION=unknown CREATED=unknown
ENV TRAINWRIGHT_IMAGE=trainwright-sharder:${VERSION} TRAINWRIGHT_COMMIT=${REVISION}
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
USER 10001:0

FROM system-with-compiler AS trainer-cpu
COPY --from=torch-cpu /opt/venv /opt/venv
COPY --from=trainer-packages /opt/venv /opt/venv
COPY --from=code /opt/venv /opt/venv
COPY --from=code /opt/trainwright /opt/trainwright
ARG VERSION=unknown REVISION=unknown CREATED=unknown
ENV TRAINWRIGHT_IMAGE=trainwright-trainer-cpu:${VERSION} TRAINWRIGHT_COMMIT=${REVISION}
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
USER 10001:0

FROM system-with-compiler AS trainer
COPY --from=torch-cuda /opt/venv /opt/venv
COPY --from=trainer-packages /opt/venv /opt/venv
COPY --from=code /opt/venv /opt/venv
COPY --from=code /opt/trainwright /opt/trainwright
ARG VERSION=unknown REVISION=unknown CREATED=unknown
ENV TRAINWRIGHT_IMAGE=trainwright-trainer:${VERSION} TRAINWRIGHT_COMMIT=${REVISION}
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
USER 10001:0
