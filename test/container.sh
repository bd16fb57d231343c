#!/bin/sh
# Builds the Dockerfile for real and runs the image: sh test/container.sh
#
# Needs root and a Debian mirror, no registry and no container daemon. debian:trixie-slim is made here with debootstrap,
# and buildah works with chroot isolation, which asks for no namespaces or cgroups that a test machine may not give. So
# this proves what is in the image and that it serves; it proves nothing about a network or pid namespace of its own.
#
# VB_CONTAINER_CACHE   folder that keeps the base root and the build layers (default ${TMPDIR:-/tmp}/vibebalancer-trixie)
set -u

repo=$(cd "$(dirname "$0")/.." && pwd)
cache=${VB_CONTAINER_CACHE:-${TMPDIR:-/tmp}/vibebalancer-trixie}
root=$cache/root
base=docker.io/library/debian:trixie-slim
workers=4
failures=0
work=
container=
buildah_pid=
processes=  # the balancer's
pids=       # the backends'

say()  { printf '%s\n' "$*"; }
pass() { say "PASS $*"; }
fail() { say "FAIL $*"; failures=$((failures + 1)); }
die()  { fail "$*"; exit 1; }

# check WHAT EXPECTED ACTUAL
check() {
    if [ "$2" = "$3" ]; then pass "$1: $3"; else fail "$1: expected '$2', got '$3'"; fi
}

# A store of its own: the base image made here must not take the place of a real debian:trixie-slim of this machine.
# chroot isolation shares the machine's network; with "container" a user of the store would also need CNI.
bah() { buildah --root "$cache/store" --runroot "$cache/run" --storage-driver "$driver" "$@"; }

# Runs a command in the container, as its user, with the file mounted as in the Dockerfile's example.
# shellcheck disable=SC2154 # $config is set below
inside() {
    bah run --isolation chroot -v "$config:/etc/vibebalancer/vibebalancer.yaml:ro" "$container" -- "$@"
}

# All descendants of a process, one pid in a line.
descendants() {
    for child in $(ps -o pid= --ppid "$1"); do
        say "$child"
        descendants "$child"
    done
}

# Those of some pids that are the balancer. By their program: a process may give itself another name.
balancers() {
    for pid in "$@"; do
        case $(readlink "/proc/$pid/exe") in */vibebalancer) say "$pid" ;; esac
    done
}

# gone PID SECONDS: waits until a process has ended (a zombie has).
gone() {
    tries=$(($2 * 10))
    while :; do
        case $(ps -o stat= -p "$1") in ''|Z*) return 0 ;; esac
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.1
    done
}

cleanup() {
    status=$?
    trap - EXIT
    trap '' INT TERM HUP PIPE
    if [ -n "$buildah_pid" ]; then
        # shellcheck disable=SC2046 # pids
        left=$(balancers $(descendants "$buildah_pid"))
        for pid in $left; do kill -TERM "$pid" 2>/dev/null; done
        for pid in $left; do gone "$pid" 5 || kill -KILL "$pid" 2>/dev/null; done
        gone "$buildah_pid" 5 || kill -KILL "$buildah_pid" 2>/dev/null
    fi
    # Workers that outlived their master are nobody's descendants any more.
    # shellcheck disable=SC2086 # pids
    for pid in $(balancers $processes); do kill -KILL "$pid" 2>/dev/null; done
    for pid in $pids; do kill "$pid" 2>/dev/null; done
    if [ -n "$container" ]; then bah rm "$container" >/dev/null 2>&1; fi
    if [ -n "$work" ]; then
        if [ "$failures" -gt 0 ] && [ -s "$work/log" ]; then
            say '--- log of the container'
            tail -n 40 "$work/log"
        fi
        rm -rf "$work"
    fi
    exit "$status"
}

[ "$(id -u)" -eq 0 ] || die 'the container test needs root: it makes a root file system and installs tools'
# chroot isolation shows the container this machine's /dev/shm, whatever is mounted there with -v. In a mount namespace
# of our own that is another one: nothing is left on the machine, nothing of it is met, and all mounts end with us.
if [ -z "${VB_CONTAINER_UNSHARED:-}" ]; then VB_CONTAINER_UNSHARED=1 exec unshare --mount sh "$0" "$@"; fi

# ---- tools -----------------------------------------------------------------------------------------------------------
missing=
for tool in buildah debootstrap curl python3; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
command -v ps >/dev/null 2>&1 || missing="$missing procps"
if [ -n "$missing" ]; then
    say "installing$missing"
    # shellcheck disable=SC2086 # a list
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
        >/dev/null || die "cannot install$missing"
fi

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP PIPE
work=$(mktemp -d "${TMPDIR:-/tmp}/vibebalancer-container.XXXXXX") || die 'no temporary folder'
mkdir -p "$cache" || die "cannot write to $cache"

# One run at a time makes and builds in the same cache; the lock goes with the descriptor.
exec 9>"$cache/lock"
flock 9

# overlay mounts are quick, but not every file system or kernel lets them be made: vfs always works.
driver=overlay
bah images >/dev/null 2>&1 || driver=vfs

# ---- debian:trixie-slim ----------------------------------------------------------------------------------------------
# The mirror and the proxy that apt uses on this machine; LABEL tells Debian's own archive from its neighbours.
# shellcheck disable=SC2016 # $(...) is apt's
mirror_of() {
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v label="$1" '$1 == label { print $2; exit }'
}
mirror=$(mirror_of Debian)
mirror=${mirror:-http://deb.debian.org/debian}
security=$(mirror_of Debian-Security)
security=${security:-http://deb.debian.org/debian-security}
proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy 2>/dev/null)
if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then export http_proxy="${http_proxy:-$proxy}"; fi

# Written last, so that a run that was cut short starts again.
if [ ! -e "$cache/complete" ]; then
    start=$(date +%s)
    rm -rf --one-file-system "$root"
    certificates=
    case $mirror$security in *https:*) certificates=--include=ca-certificates ;; esac
    # shellcheck disable=SC2086 # nothing, or one option
    debootstrap --variant=minbase $certificates trixie "$root" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
        { tail -n 5 "$cache/debootstrap.log"; die "debootstrap trixie from $mirror"; }
    # The suites of the public image, and what it leaves out, so that sizes can be compared.
    printf 'deb %s %s main\n' "$mirror" trixie "$mirror" trixie-updates "$security" trixie-security \
        >"$root/etc/apt/sources.list"
    printf 'path-exclude /usr/share/%s\n' 'doc/*' 'man/*' 'locale/*' 'info/*' >"$root/etc/dpkg/dpkg.cfg.d/slim"
    # The clock of a test machine may be off, and its mirror old: what this machine's apt accepts is accepted inside.
    apt-config dump | grep -E '^Acquire::(Check-|http::Proxy|https::Proxy|ForceIPv4|Retries)' \
        >"$root/etc/apt/apt.conf.d/50host"
    chroot "$root" apt-get clean
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc/* "$root"/usr/share/man/* \
        "$root"/usr/share/locale/* "$root"/usr/share/info/*
    : >"$root/etc/resolv.conf"
    if [ -d "$cache/store" ]; then bah rmi --force "$base" >/dev/null 2>&1; fi
    : >"$cache/complete"
    say "debootstrap: $(($(date +%s) - start)) s"
fi
if ! bah inspect --type image "$base" >/dev/null 2>&1; then
    { scratch=$(bah from scratch) && bah add -q "$scratch" "$root" / && bah config --cmd bash "$scratch" &&
        bah commit -q --rm "$scratch" "$base"; } >/dev/null || die "cannot import $root as $base"
fi

# ---- build -----------------------------------------------------------------------------------------------------------
# --format docker: OCI's own format has no HEALTHCHECK.
build() {
    bah bud --isolation chroot --layers --force-rm --pull-never --format docker "$@" "$repo" >"$work/build.log" 2>&1 || {
        tail -n 40 "$work/build.log"
        die "buildah bud $*"
    }
}
start=$(date +%s)
# Both stages get a name: the one without is what may be pruned, and the compiler's layers are worth keeping.
build --target build -t localhost/vibebalancer-build
build -t localhost/vibebalancer --iidfile "$work/image"
bah rmi --prune >/dev/null 2>&1
image=$(cat "$work/image")
container=$(bah from --pull-never "$image") || die 'cannot make a container'
flock -u 9
pass "image built in $(($(date +%s) - start)) s"

configured() { bah inspect --type image --format "{{$1}}" "$image"; }
check 'entry point' '[vibebalancer]' "$(configured .Docker.Config.Entrypoint)"
check 'arguments by default' '[]' "$(configured .Docker.Config.Cmd)"
check 'stop signal' SIGTERM "$(configured .Docker.Config.StopSignal)"
check 'health check' '[CMD vbctl status]' "$(configured .Docker.Config.Healthcheck.Test)"
case $(configured .Docker.Config.User) in
    0|0:*|'') fail 'the image runs as root' ;;
    *[!0-9:]*) fail 'USER is a name: Kubernetes cannot see that it is not root' ;;
    *) pass "USER $(configured .Docker.Config.User)" ;;
esac

size() { bah images --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["size"])'; }
say "     image size $(size localhost/vibebalancer), of which debian:trixie-slim as made here $(size "$base")"

# ---- run -------------------------------------------------------------------------------------------------------------
# Docker gives a container 64 MiB of shared memory: a segment that needs more would not start there.
mount -t tmpfs -o size=64m,mode=1777 shm /dev/shm || die 'cannot mount a /dev/shm'
config=$repo/vibebalancer.yaml
# shellcheck disable=SC2016 # ${...} is dpkg-query's
bah run --isolation chroot "$container" -- dpkg-query -W -f '${Package} ${Version}\n' |
    grep -E '^lib(uv1|llhttp|yaml|jansson)' | sed 's/^/     /'
if inside vibebalancer --check >"$work/check" 2>&1; then
    pass "the image's own file: $(cat "$work/check")"
else
    fail "the image's own file: $(cat "$work/check")"
fi

cat >"$work/backend.py" <<'END'
import http.server, os, sys
name, port_file = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (name + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w") as f:
    print(server.server_address[1], file=f)
os.rename(port_file + ".new", port_file)
server.serve_forever()
END
for name in b1 b2 b3; do
    python3 "$work/backend.py" "$name" "$work/$name.port" >>"$work/backends.log" 2>&1 9>&- &
    pids="$pids $!"
done
backends=
for name in b1 b2 b3; do
    tries=100
    until [ -s "$work/$name.port" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "backend $name did not start: $(cat "$work/backends.log")"
        sleep 0.1
    done
    backends="$backends${backends:+, }127.0.0.1:$(cat "$work/$name.port")"
done
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

config=$work/vibebalancer.yaml
cat >"$config" <<END
listen: 127.0.0.1:$port
pools:
  web:
    backends: [$backends]
END
chmod 644 "$config"

# As `docker run ... vibebalancer --workers 4`: the entry point from the image, which is one word, and the arguments.
inside vibebalancer --workers "$workers" >"$work/log" 2>&1 9>&- &
buildah_pid=$!
url=http://127.0.0.1:$port/
tries=100
until inside vbctl status >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ] || gone "$buildah_pid" 0; then die 'vbctl status never said that it runs'; fi
    sleep 0.1
done
pass 'the health check passes'

n=0
while [ "$n" -lt 30 ]; do
    curl -sS --noproxy '*' --max-time 5 "$url" >>"$work/answers" 2>&1 || say "request $n failed" >>"$work/answers"
    n=$((n + 1))
done
check '30 requests by backend' '10 b1, 10 b2, 10 b3' \
    "$(sort "$work/answers" | uniq -c | awk '{ $1 = $1; printf "%s%s", sep, $0; sep = ", " }')"

inside vbctl status --json >"$work/status.json" 2>"$work/status.err"
check 'vbctl status --json' "running, $workers of $workers workers ready" "$(python3 - "$work/status.json" <<'END' 2>&1 | tail -n 1
import json, sys
status = json.load(open(sys.argv[1]))
print("{state}, {workers[ready]} of {workers[wanted]} workers ready".format(**status))
END
)"

# They run in this machine's pid namespace, below the buildah that we started.
# shellcheck disable=SC2046 # pids
processes=$(balancers $(descendants "$buildah_pid"))
check 'processes' $((workers + 1)) "$(say "$processes" | grep -c .)"
uids=$(for pid in $processes; do awk '/^Uid:/ { print $2, $3, $4, $5 }' "/proc/$pid/status"; done | sort -u)
case " $uids " in
    *' 0 '*|'  ') fail "runs as root: uids $uids" ;;
    *) pass "real, effective, saved and file system uid of all processes: $uids" ;;
esac

# ---- stop ------------------------------------------------------------------------------------------------------------
# The first one is the parent of the others: the master, which is pid 1 in Docker and gets its signal.
master=$(say "$processes" | head -n 1)
kill -TERM "$master"
if gone "$buildah_pid" 5; then
    wait "$buildah_pid"
    check 'exit status after SIGTERM' 0 $?
    buildah_pid=
else
    fail 'still running 5 s after SIGTERM'
fi
left=$(for pid in $processes; do if [ -d "/proc/$pid" ]; then say "$pid"; fi; done)
check 'processes left' '' "$left"
if inside vbctl status >"$work/after" 2>&1; then
    fail "the health check still passes after the stop: $(cat "$work/after")"
else
    pass "the health check fails after the stop: $(head -n 1 "$work/after")"
fi

[ "$failures" -eq 0 ] || exit 1
say 'PASS container'
