#!/bin/sh
# What starts in a container, and what `apptainer exec` is given: the words after it are those of `trainwright`.
set -eu
# A site's own module system or a runscript may have set another PATH.
export PATH="/opt/venv/bin:${PATH:-/usr/bin:/bin}"
exec /opt/venv/bin/python -m infra.boot.entry "$@"
