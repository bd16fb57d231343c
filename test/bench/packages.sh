# What live.sh, run.sh and soak.sh do first. To be read with `.`, after `root` is set.
#
#   need_peers         nginx, HAProxy and what building needs; more with `program` (examples/packages.sh)
#   install_quietly    installs what is missing; servers that come so do not start, now or at the next boot
#   build TARGET...    a release build, in VB_BUILD_DIR (default: build in the repository)
# shellcheck shell=sh

export VB_BUILD_DIR="${VB_BUILD_DIR:-$root/build}"
PATH=$PATH:/usr/sbin:/sbin # nginx and haproxy are there; an ordinary user's PATH may not be
. "$root/examples/packages.sh"

need_peers() {
    need_to_build
    program python3 /usr/bin/python3
    program nginx-light nginx
    program haproxy haproxy
}

install_quietly() {
    install_missing
    case " $missing " in
    *" nginx-light "* | *" haproxy "*)
        for name in nginx haproxy; do
            case " $missing " in *" $name"*) as_root systemctl disable $name >/dev/null 2>&1 || : ;; esac
        done ;;
    esac
}

build() {
    cmake -S "$root" -B "$VB_BUILD_DIR" -DCMAKE_BUILD_TYPE=Release -DVB_BENCH=ON >/dev/null
    cmake --build "$VB_BUILD_DIR" --parallel "$(nproc)" --target "$@" >/dev/null
}
