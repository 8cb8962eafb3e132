#!/usr/bin/env bash
# Runs the experiment small on this machine. Rendered; edit the experiment instead.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export RUN_EXPERIMENT=small
export RUN_SHARD=1
export SHARD_LINES=10000
exec trainwright boot "$here"/small.yaml train.steps=20 'data.path=/data/it'"'"'s here' --continue "$@"
