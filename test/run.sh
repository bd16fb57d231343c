#!/bin/sh
# Builds with sanitizers and runs every test: sh test/run.sh [--container] [arguments for ctest...]
#
# On Debian 12 or 13 it installs what is missing with apt, as root or through sudo; where nothing is missing it needs
# neither. The last lines are ctest's own summary, the exit status is ctest's.
#   sh test/run.sh -L unit       only the unit tests (labels: unit, e2e, gate)
#   sh test/run.sh --container   builds and tries the container image instead
# VB_BUILD_DIR   folder for the build (default: build-asan in the repository)
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=${VB_BUILD_DIR:-$root/build-asan}

if [ "${1:-}" = --container ]; then
    shift
    exec sh "$root/test/container.sh" "$@"
fi

# ---- packages ---------------------------------------------------------------------------------------------------------
missing=
need()    { missing="$missing $1"; }                           # need PACKAGE
program() { command -v "$2" >/dev/null 2>&1 || need "$1"; }    # program PACKAGE COMMAND
library() { pkg-config --exists "$2" 2>/dev/null || need "$1"; } # library PACKAGE PKG_CONFIG_NAME

PATH=$PATH:/usr/sbin:/sbin # nginx is there; an ordinary user's PATH may not be
program gcc gcc
program cmake cmake
program ninja-build ninja
program pkg-config pkg-config
program curl curl
program procps ps
program nginx-light nginx
library libuv1-dev libuv
library libyaml-dev yaml-0.1
library libjansson-dev jansson
library libcmocka-dev cmocka
[ -e /usr/include/stdio.h ] || need libc6-dev
/usr/bin/python3 -c 'import pytest' 2>/dev/null || need python3-pytest
if ! pkg-config --exists libllhttp 2>/dev/null && ! [ -e /usr/share/llhttp/llhttp.c ]; then
    need llhttp
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts what it installs, and nginx would take port 80. policy-rc.d is Debian's way to say no.
install_packages() {
    policy=/usr/sbin/policy-rc.d
    ours=
    if ! [ -e $policy ]; then
        ours=yes
        trap 'as_root rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends "$@" </dev/null
    if [ -n "$ours" ]; then
        as_root rm -f $policy
        trap - EXIT
    fi
    case " $* " in
    *" nginx-light "*) as_root systemctl disable nginx >/dev/null 2>&1 || : ;; # nor at the next boot
    esac
}

if [ -n "$missing" ]; then
    echo "== installing:$missing"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "$0: these Debian packages are missing, and there is no apt-get:$missing" >&2
        exit 1
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
        echo "$0: these Debian packages are missing; install them as root:$missing" >&2
        exit 1
    fi
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update </dev/null
    case " $missing " in
    *" llhttp "*) # Debian 13 has a library, Debian 12 its source
        llhttp=node-llhttp
        if apt-cache policy libllhttp-dev | grep -q 'Candidate: [0-9]'; then llhttp=libllhttp-dev; fi
        missing=$(printf '%s' "$missing" | sed "s/ llhttp/ $llhttp/")
        ;;
    esac
    # shellcheck disable=SC2086 # names, not paths
    install_packages $missing
fi

# ---- build, test ------------------------------------------------------------------------------------------------------
if ! [ -e "$build/CMakeCache.txt" ]; then
    export CMAKE_GENERATOR=Ninja # an existing build folder keeps its own
fi
cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DVB_ASAN=ON -DVB_WERROR=ON -DVB_TESTS=ON
cmake --build "$build" --parallel "$(nproc)"

cd "$build"
exec ctest --output-on-failure --no-tests=error -j "$(nproc)" "$@"
