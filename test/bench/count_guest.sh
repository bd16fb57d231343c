#!/bin/busybox sh
# What count.py has the emulated machine do, as its init. /plan, which count.py writes, has the functions `backends`,
# `proxy` and `load`, CHECK (a program), BACKENDS (how many), BACKEND_PORT, PORT (hexadecimal), WORKER (`self`, or
# `child` where the proxy has one that serves), and MODES. Without MODES only the addresses of the kernel's functions
# are asked for. Lines for count.py begin with @; nothing is a result without @end.
# shellcheck shell=sh disable=SC1091,SC2153,SC3045 # all of it is the plan's; busybox's sh has ulimit -n
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
exec </dev/null >/dev/ttyS0 2>&1
ifconfig lo 127.0.0.1 netmask 255.0.0.0 up
ulimit -n 65536
. /plan

end() { echo "@$*"; sync; poweroff -f; }

wait_for() { # WHAT COMMAND...; what it waits for is nothing that a shell has an event for
    what=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || end "failed: $what: not in time"
        usleep 20000
    done
}

listening() { [ "$(grep -c ":$1 00000000:0000 0A" /proc/net/tcp)" = "$2" ]; }
is_stopped() { [ "$(cut -d ' ' -f 3 "/proc/$1/stat")" = T ]; }
has_child() { read -r worker _ <"/proc/$1/task/$1/children"; [ -n "$worker" ]; }

counters() { # LABEL PID; who reads schedstat has the plugin write its counters
    for task in "/proc/$2/task"/*; do echo "@read $1 $(cat "$task/schedstat")"; done
}

check() { # a process that executes what is known from stop to stop
    $CHECK &
    wait_for "the check stops" is_stopped $!
    counters check $!
    kill -CONT $!
    wait_for "the check stops again" is_stopped $!
    counters check $!
    kill -KILL $!
}

measure() { # MODE
    case $1 in wake) feature=WAKEUP_PREEMPTION ;; batch) feature=NO_WAKEUP_PREEMPTION ;; esac
    echo "$feature" >/sys/kernel/debug/sched/features || end "failed: this kernel's scheduler has no $feature"
    load >/tmp/warm & # for a while, so that connections to backends are there
    usleep 300000
    kill -INT $!
    wait $! || end "failed: the load, to warm up: $(cat /tmp/warm)"
    counters "$1" "$worker"
    (load) >/tmp/load || end "failed: the load: $(cat /tmp/load)"
    counters "$1" "$worker"
    echo "@load $1 $(grep '^figures' /tmp/load)"
}

if [ -z "$MODES" ]; then
    grep -E ' (__switch_to_asm|proc_pid_schedstat)$' /proc/kallsyms
    end end
fi
check
backends &
wait_for "the backends listen" listening "$BACKEND_PORT" "$BACKENDS"
proxy &
worker=$!
wait_for "the proxy listens" listening "$PORT" 1
if [ "$WORKER" = child ]; then wait_for "the proxy has a worker" has_child "$worker"; fi
for mode in $MODES; do measure "$mode"; done
end end
