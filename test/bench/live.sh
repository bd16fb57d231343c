#!/bin/sh
# VibeBalancer, HAProxy and nginx in front of the same backends, one of them slow: sh test/bench/live.sh [options...]
#
# Installs what is missing on Debian (as root or through sudo), builds, and measures for about two minutes.
# --help says more. VB_BUILD_DIR   folder for the build (default: build in the repository)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/test/bench/packages.sh"
need_peers
install_quietly
build vibebalancer vbctl vbdemo
exec /usr/bin/python3 "$root/test/bench/live.py" "$@"
