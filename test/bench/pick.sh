#!/bin/sh
# What a pick costs, in nanoseconds and instructions, as a table: sh test/bench/pick.sh [options of bench_pick...]
#
# Instructions are counted by valgrind's callgrind, which needs no counter of the processor's: all that is done inside
# vb_lb_pick and vb_lb_done. They are those of another run, over fewer picks.
#   --picks N       how many are timed in each of nine rounds
#   --policy NAME   only this one
#   --weighted      backends of weights 1 to 5
#   --json FILE     the same figures
# VB_BUILD_DIR      folder for the build (default: build in the repository)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${VB_BUILD_DIR:-$root/build}
counted=200 # picks of each of the nine rounds under callgrind

cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DVB_BENCH=ON >/dev/null
cmake --build "$build" --parallel "$(nproc)" --target bench_pick >/dev/null

if ! command -v valgrind >/dev/null 2>&1; then
    echo "$0: no instructions: valgrind is not installed" >&2
    exec "$build/bench_pick" "$@"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The last --picks and --json win.
valgrind -q --tool=callgrind --callgrind-out-file="$work/count" --collect-atstart=no \
    --toggle-collect=measured_pick --toggle-collect=measured_done \
    --dump-after=measured_case \
    "$build/bench_pick" "$@" --picks "$counted" --json /dev/null >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }
n=1
while [ -e "$work/count.$n" ]; do # one for each case
    awk -v picks=$((9 * counted)) '$1 == "totals:" { print $2 / picks }' "$work/count.$n"
    n=$((n + 1))
done >"$work/instructions"
"$build/bench_pick" "$@" --instructions "$work/instructions"
