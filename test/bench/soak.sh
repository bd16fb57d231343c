#!/bin/sh
# Ten minutes of all kinds of load and trouble, and whether memory or descriptors grow: sh test/bench/soak.sh [options...]
#
# Installs what is missing on Debian (as root or through sudo), builds, and ends with status 1 when something grows.
# --help says more. VB_BUILD_DIR   folder for the build (default: build in the repository)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/test/bench/packages.sh"
need_to_build
program python3 /usr/bin/python3
install_quietly
build vibebalancer vbctl vbdemo
exec /usr/bin/python3 "$root/test/bench/soak.py" "$@"
