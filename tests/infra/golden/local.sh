#!/usr/bin/env bash
# Runs the experiment small on this machine. Rendered; edit the experiment instead.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec trainwright boot "$here"/small.yaml train.steps=20 'data.path=/data/it'"'"'s here' --continue "$@"
