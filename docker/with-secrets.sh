#!/bin/sh
# Run a command with the ledger's password, a secret by file, in the variable that libpq reads.
set -eu
PGPASSWORD=$(cat "${PGPASSWORD_FILE:-/run/secrets/database_password}")
export PGPASSWORD
exec "$@"
