#!/usr/bin/env bash
# test_sass.sh: the kernels' machine code for sm_80, sm_90 and sm_100 against test/sass_budget.json: registers, spills,
# tensor-core instructions, 16-byte accesses. Needs no GPU. That a tight or stale budget is noticed: test_cudasim.sh.
set -u
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 dev/cuda/sass_check.py test/sass_budget.json llmc/cuda/*.cu | tee "$folder/out"
passed=$(grep -c '^ok ' "$folder/out")
failed=$(grep -c '^FAIL ' "$folder/out")
tail -n 1 "$folder/out" | grep -q ' kernels checked, ' || failed=$((failed + 1)) # it ended before its end
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
