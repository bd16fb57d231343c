# Installs what building needs on Debian 12 or 13. To be read with `.`, by quickstart.sh and test/run.sh.
#
#   program PACKAGE COMMAND       the package is needed unless the command exists
#   library PACKAGE PC_NAME       ... unless pkg-config knows the library
#   need PACKAGE                  ... in any case
#   need_to_build                 all that building the programs needs
#   install_missing               installs what was found missing, as root or through sudo; does nothing otherwise
# shellcheck shell=sh

missing=
need()    { missing="$missing $1"; }
program() { command -v "$2" >/dev/null 2>&1 || need "$1"; }
library() { pkg-config --exists "$2" 2>/dev/null || need "$1"; }

need_to_build() {
    program gcc gcc
    program cmake cmake
    program ninja-build ninja
    program pkg-config pkg-config
    [ -e /usr/include/stdio.h ] || need libc6-dev
    library libuv1-dev libuv
    library libyaml-dev yaml-0.1
    library libjansson-dev jansson
    # Debian 13 has llhttp as a library, Debian 12 as C source in a package of Node.js.
    pkg-config --exists libllhttp 2>/dev/null || [ -e /usr/share/llhttp/llhttp.c ] || need llhttp
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts the servers that it installs (nginx would take port 80); policy-rc.d is Debian's way to say no.
apt_install() {
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
}

install_missing() {
    [ -n "$missing" ] || return 0
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
    llhttp=node-llhttp
    if apt-cache policy libllhttp-dev | grep -q 'Candidate: [0-9]'; then llhttp=libllhttp-dev; fi
    missing=$(printf '%s ' "$missing" | sed "s/ llhttp / $llhttp /")
    # shellcheck disable=SC2086 # names, not paths
    apt_install $missing
}
