#!/bin/sh
# Draw the secrets that are not there yet. Containers read them as users of their own, so the files
# are readable; the folder is closed to everyone else of this machine.
set -eu
cd "$(dirname "$0")/secrets"
chmod 700 .
for name in ray_token database_password grafana_password; do
    [ -s "$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$name"
    chmod 644 "$name"
done
