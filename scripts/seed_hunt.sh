#!/usr/bin/env bash
# Simulates new seeds for hours and keeps those that fail: scripts/seed_hunt.sh [HOURS] [PRESET].
# A failing seed is appended to tests/sim/seeds.txt, which every test run replays.
set -euo pipefail
cd "$(dirname "$0")/.."
hours="${1:-1}"
preset="${2:-release}"
binary="build/$preset/bin/serving_sim_test"
if [[ ! -x "$binary" ]]; then
  cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset" --target serving_sim_test
fi
seeds=tests/sim/seeds.txt
output="$(mktemp)"
trap 'rm -f "$output"' EXIT
end=$(($(date +%s) + hours * 3600))
seed=$(($(date +%s) * 1000))
found=0
batch=200
filter=--gtest_filter=ServingSim.KeepsEveryPromiseForEverySeed
while (($(date +%s) < end)); do
  if ! TEST_SEEDS="$seed:$((seed + batch - 1))" "$binary" "$filter" >"$output" 2>&1; then
    # An aborted batch does not name its seed: its seeds are run one by one.
    for ((one = seed; one < seed + batch; one++)); do
      if ! TEST_SEED="$one" "$binary" "$filter" >"$output" 2>&1; then
        reason="$(grep -m1 -E 'Which is:|check failed|CHECK' "$output" | tr -s ' ' || true)"
        echo "$one $reason" >>"$seeds"
        echo "failed: TEST_SEED=$one $reason"
        found=$((found + 1))
      fi
    done
  fi
  seed=$((seed + batch))
done
echo "seed_hunt: $found failing seeds; they are in $seeds"
((found == 0))
