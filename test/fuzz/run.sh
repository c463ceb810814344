#!/usr/bin/env bash
# run.sh NAME [SECONDS [LIMIT]]: runs build/fuzz/NAME (`make fuzz` builds it) for 10 SECONDS from seeds that are valid
# files, and what an earlier run found worth keeping. An input that breaks the parser, or takes more than LIMIT (10)
# seconds of processor time (slow.c), is printed in hexadecimal and kept in build/fuzz/NAME.found/; the next run tries it
# first.
set -uo pipefail
cd "$(dirname "$0")/../.."
name=$1 seconds=${2:-10} limit=${3:-10}
corpus=build/fuzz/$name.corpus seeds=build/fuzz/$name.seeds found=build/fuzz/$name.found log=build/fuzz/$name.log
mkdir -p "$corpus" "$seeds" "$found"
python3 test/fuzz/seeds.py "$name" "$seeds" || exit 1
# Small inputs: what a length claims matters, not how much is there. libFuzzer's clocks for single inputs are off.
build/fuzz/"$name" -max_total_time="$seconds" -timeout=0 -report_slow_units=1000000 --limit="$limit" \
    -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$found/" "$corpus" "$seeds" "$found" 2>&1 | tee "$log" |
    grep -vE '^#[0-9]+[[:space:]]+(NEW|REDUCE)'
status=${PIPESTATUS[0]}
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
if [ "$status" = 0 ] && [ "${runs:-0}" -gt "$(ls "$seeds" | wc -l)" ]; then
    echo "1 passed, 0 failed"
else
    for file in "$found"/*; do [ -f "$file" ] && echo "$file" && head -c 512 "$file" | od -A x -t x1z; done
    echo "0 passed, 1 failed"
    exit 1
fi
