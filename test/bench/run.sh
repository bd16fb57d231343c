#!/bin/sh
# What a request costs in VibeBalancer, nginx, HAProxy and a bare relay: sh test/bench/run.sh [options...]
#
# Installs what is missing on Debian (as root or through sudo), builds, and measures for about five minutes.
# --help says more. VB_BUILD_DIR   folder for the build (default: build in the repository)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/test/bench/packages.sh"
need_peers
program wrk wrk
for counters in /sys/bus/event_source/devices/cpu*; do # without them perf has nothing to count
    if [ -e "$counters" ]; then program linux-perf perf; fi
done
install_quietly
build vibebalancer vbctl vbdemo bench_relay bench_backend bench_load
exec /usr/bin/python3 "$root/test/bench/run.py" "$@"
