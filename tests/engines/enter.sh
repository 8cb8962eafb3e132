#!/usr/bin/env bash
# enter.sh ROOT COMMAND...: run a command in another root, as a site would have it. Called under `unshare --mount`, so
# that every mount ends with the command. Apptainer refuses a chroot, so the root is pivoted into.
set -euo pipefail
root=$1 here=$PWD
shift
mount --make-rprivate /
mount --rbind "$root" "$root"
for shared in /proc /sys /dev /tmp /var/tmp "$(cd "$(dirname "$0")/../.." && pwd)"; do
    mkdir -p "$root$shared"
    mount --rbind "$shared" "$root$shared"
done
cp /etc/hosts /etc/resolv.conf "$root/etc/"
cd "$root"
mkdir -p .old
pivot_root . .old
cd "$here"
umount -l /.old
exec "$@"
