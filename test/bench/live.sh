#!/bin/sh
# VibeBalancer, HAProxy and nginx in front of the same backends, one of them slow: sh test/bench/live.sh [options...]
#
# Installs what is missing on Debian (as root or through sudo), builds, and measures for about two minutes.
# --help says more. VB_BUILD_DIR   folder for the build (default: build in the repository)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
export VB_BUILD_DIR="${VB_BUILD_DIR:-$root/build}"

PATH=$PATH:/usr/sbin:/sbin # nginx and haproxy are there; an ordinary user's PATH may not be
. "$root/examples/packages.sh"
need_to_build
program python3 /usr/bin/python3
program nginx-light nginx
program haproxy haproxy
install_missing
case " $missing " in
*" nginx-light "* | *" haproxy "*) # they shall not start at the next boot either
    for name in nginx haproxy; do
        case " $missing " in *" $name"*) as_root systemctl disable $name >/dev/null 2>&1 || : ;; esac
    done ;;
esac

cmake -S "$root" -B "$VB_BUILD_DIR" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$VB_BUILD_DIR" --parallel "$(nproc)" --target vibebalancer vbctl vbdemo >/dev/null
exec /usr/bin/python3 "$root/test/bench/live.py" "$@"
