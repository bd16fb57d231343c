#!/bin/sh
# Instructions for each request in VibeBalancer, nginx, HAProxy and a bare relay, for machines without the processor's
# counters: sh test/bench/count.sh [options...]
#
# Installs what is missing on Debian 12 (as root or through sudo), builds, and counts, a minute or two for each row and
# proxy. --help says more. VB_BUILD_DIR   folder for the build (default: build in the repository)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/test/bench/packages.sh"
need_peers
program wrk wrk
program qemu-system-x86 qemu-system-x86_64
program busybox-static busybox
program cpio cpio
install_quietly
build vibebalancer bench_relay bench_backend
gcc -O2 -Wall -Wextra -shared -fPIC -o "$VB_BUILD_DIR/bench_count.so" "$root/test/bench/count.c"
exec /usr/bin/python3 "$root/test/bench/count.py" "$@"
