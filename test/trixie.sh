#!/bin/sh
# Runs the tests on Debian 13, where llhttp is 9.x: sh test/trixie.sh [arguments for ctest...]
#
# Makes a root file system with debootstrap, copies the committed tree (HEAD) into it, and runs test/run.sh there, in a
# chroot with mount and pid namespaces of its own. Needs root and a Debian mirror. The exit status is ctest's.
#   sh test/trixie.sh -L unit    only the unit tests
#
# VB_TRIXIE_ROOT   folder that keeps the root file system (default ${TMPDIR:-/tmp}/vibebalancer-trixie-root)
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
cache=${VB_TRIXIE_ROOT:-${TMPDIR:-/tmp}/vibebalancer-trixie-root}
root=$cache/root

say() { printf '%s\n' "== $*"; }
die() { printf '%s\n' "$0: $*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || die 'it needs root: it makes a root file system and works in a chroot'

# ---- in the namespaces: mounts that end with us, and no process that outlives us -------------------------------------
if [ "${1:-}" = --inside ]; then
    shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
    mount --rbind /sys "$root/sys" 2>/dev/null || say 'no /sys' # CPUs of a cgroup are read there
    # Ports are the machine's: tests out there and in here keep away from each other by the same locks.
    ports=vibebalancer-test-ports-0
    mkdir -p "${TMPDIR:-/tmp}/$ports" "$root/tmp/$ports"
    mount --bind "${TMPDIR:-/tmp}/$ports" "$root/tmp/$ports"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 ${http_proxy:+http_proxy="$http_proxy"} \
        ${https_proxy:+https_proxy="$https_proxy"} VB_BUILD_DIR=/build \
        chroot "$root" sh -c 'cd /src && exec sh test/run.sh "$@"' run "$@"
fi

# ---- tools -----------------------------------------------------------------------------------------------------------
missing=
for tool in debootstrap git tar; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    say "installing$missing"
    # shellcheck disable=SC2086 # a list
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
        >/dev/null || die "cannot install$missing"
fi
mkdir -p "$cache" || die "cannot write to $cache"
exec 9>"$cache/lock" # one run at a time; the lock goes with the descriptor
flock 9

# ---- Debian 13 -------------------------------------------------------------------------------------------------------
# The mirror and the proxy that apt uses on this machine; LABEL tells Debian's own archive from its neighbours.
# shellcheck disable=SC2016 # $(...) is apt's
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" { print $2; exit }')
mirror=${mirror:-http://deb.debian.org/debian}
proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy 2>/dev/null || :)
if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then export http_proxy="${http_proxy:-$proxy}"; fi

if [ ! -e "$cache/complete" ]; then # written last, so that a run that was cut short starts again
    say "making a Debian 13 in $root"
    rm -rf --one-file-system "$root"
    certificates=
    case $mirror in https:*) certificates=--include=ca-certificates ;; esac
    # shellcheck disable=SC2086 # nothing, or one option
    debootstrap --variant=minbase $certificates trixie "$root" "$mirror" >"$cache/debootstrap.log" 2>&1 9>&- ||
        { tail -n 5 "$cache/debootstrap.log"; die "debootstrap trixie from $mirror"; }
    # The clock of a test machine may be off, and its mirror old: what this machine's apt accepts is accepted inside.
    apt-config dump | grep -E '^Acquire::(Check-|http::Proxy|https::Proxy|ForceIPv4|Retries)' \
        >"$root/etc/apt/apt.conf.d/50host" || :
    : >"$cache/complete"
fi
cp -L /etc/resolv.conf /etc/hosts "$root/etc/" # they change with the machine's network
if [ -d /usr/local/share/ca-certificates ] && [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    mkdir -p "$root/etc/ssl/certs"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # a mirror may be known to this machine alone
fi

# ---- the tests -------------------------------------------------------------------------------------------------------
# A fresh build each time: what git archive writes has the commit's time, so an older commit would look unchanged.
rm -rf --one-file-system "$root/src" "$root/build"
mkdir "$root/src"
tree() { git -c safe.directory="$repo" -C "$repo" "$@"; }
tree archive HEAD | tar -x -C "$root/src"
say "$(. "$root/etc/os-release" && printf '%s' "$PRETTY_NAME"), commit $(tree rev-parse --short HEAD)"
exec unshare --mount --pid --fork --kill-child sh "$0" --inside "$@" 9>&-
