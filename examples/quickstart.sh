#!/bin/sh
# From a fresh Debian 12 or 13 to a running load balancer: sh examples/quickstart.sh [--once]
#
# Installs what is missing (as root or through sudo), builds, starts three demo backends and the balancer with
# vibebalancer.yaml, sends some requests through it, and shows what answered and what vbctl says. It keeps running until
# Ctrl-C; with --once it stops after the demonstration.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
once=
case "${1:-}" in
"") ;;
--once) once=yes ;;
*)
    echo "usage: sh examples/quickstart.sh [--once]" >&2
    exit 2
    ;;
esac

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

. "$root/examples/packages.sh"
need_to_build
program curl curl
install_missing

say "building (the first time takes a minute)"
if ! [ -e "$build/CMakeCache.txt" ]; then
    export CMAKE_GENERATOR=Ninja
fi
cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release >"$root/build.log" 2>&1 &&
    cmake --build "$build" --parallel "$(nproc)" >>"$root/build.log" 2>&1 || {
    cat "$root/build.log" >&2
    exit 1
}
rm -f "$root/build.log"
PATH=$build:$PATH

# ---- processes: whatever we start ends with us --------------------------------------------------------------------------
# In sessions of their own, so that a terminal's Ctrl-C reaches this script only, which then ends them in order.
pids=
balancer=
stop_all() {
    trap - EXIT INT TERM
    # The balancer first: it finishes what it has, and that needs the backends.
    if [ -n "$balancer" ]; then
        kill -TERM "$balancer" 2>/dev/null || :
        wait "$balancer" 2>/dev/null || :
    fi
    for pid in $pids; do kill -TERM "$pid" 2>/dev/null || :; done
    wait
}
trap stop_all EXIT
trap 'say "stopping"; exit 0' INT TERM

# Waits until URL answers; the process that should do so must be alive then, and not another one on its port.
answers() {
    tries=0
    until curl -s -o /dev/null --max-time 5 "$1"; do
        tries=$((tries + 1))
        if [ $tries -gt 50 ] || ! kill -0 "$2" 2>/dev/null; then break; fi
        sleep 0.1
    done
    if [ $tries -gt 50 ] || ! kill -0 "$2" 2>/dev/null; then
        echo "quickstart: the program that should answer on $1 does not run; see above" >&2
        exit 1
    fi
}

say "three demo backends"
for n in 1 2 3; do
    setsid vbdemo --port 900$n --name b$n &
    pids="$pids $!"
    answers "http://127.0.0.1:900$n/health" $!
done

say "the balancer: vibebalancer -c vibebalancer.yaml"
cd "$root"
setsid vibebalancer -c vibebalancer.yaml &
balancer=$!
answers http://127.0.0.1:8080/ $balancer

say "nine requests: the backends take turns"
for _ in 1 2 3 4 5 6 7 8 9; do
    curl -s http://127.0.0.1:8080/
done

say "what a client sees"
show curl -si http://127.0.0.1:8080/

say "what vbctl sees"
show vbctl status
echo
show vbctl backends
echo
show vbctl workers

if [ -n "$once" ]; then
    say "done: stopping"
    exit 0
fi
say "it keeps running on http://127.0.0.1:8080/ until Ctrl-C; in another terminal try"
cat <<EOF
  curl http://127.0.0.1:8080/info
  $build/vbctl backends
  curl -X POST 'http://127.0.0.1:9002/control?health=down'    # and look at vbctl backends again
EOF
wait "$balancer" || echo "quickstart: the balancer has ended" >&2
