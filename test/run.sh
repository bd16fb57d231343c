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
PATH=$PATH:/usr/sbin:/sbin # nginx is there; an ordinary user's PATH may not be
. "$root/examples/packages.sh"
need_to_build
library libcmocka-dev cmocka
program curl curl
program procps ps
program nginx-light nginx
program nodejs node
python() { /usr/bin/python3 -c "import $2" 2>/dev/null || need "$1"; }
python python3-pytest pytest
python python3-h11 h11
python gunicorn gunicorn
python python3-waitress waitress
python python3-websockets websockets
install_missing
case " $missing " in
*" nginx-light "*) as_root systemctl disable nginx >/dev/null 2>&1 || : ;; # it shall not start at the next boot either
esac

# ---- build, test ------------------------------------------------------------------------------------------------------
if ! [ -e "$build/CMakeCache.txt" ]; then
    export CMAKE_GENERATOR=Ninja # an existing build folder keeps its own
fi
cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DVB_ASAN=ON -DVB_WERROR=ON -DVB_TESTS=ON
cmake --build "$build" --parallel "$(nproc)"

cd "$build"
exec ctest --output-on-failure --no-tests=error -j "$(nproc)" "$@"
