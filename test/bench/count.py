#!/usr/bin/env python3
"""Instructions for each request in VibeBalancer, nginx, HAProxy and a bare relay, with one worker or thread each.

    sh test/bench/count.sh [--row NAME]... [--only NAME] [--mode wake|batch] [--json FILE]      builds first

For machines where run.sh finds none of the processor's counters: each proxy runs in an emulated machine of one CPU
(QEMU, which executes a fixed number of instructions in a second of the machine's time), with Debian's kernel, the load
and the backends, and a plugin (count.c) counts what the task that serves executes, in user space and in the kernel,
interrupts that come meanwhile included. Rows are as in run.py, of a second or two of the machine's time.

What is not counted: cycles. Misses of caches and of branches cost nothing here, and no figure is a time; a copy of
4 KiB by one REP instruction is one instruction, as for a processor's counter. The processor has no fast REP MOVSB, so
that the kernel copies as without it.

Modes, between which real machines are:
  wake    the kernel's scheduler as it is. On one CPU each event wakes the proxy at once: a switch for each event and
          no two events at a time, as in a proxy with little to do
  batch   nobody preempts who is running when woken: dozens of events at a time, as in a proxy at its limit

Counts hardly differ from run to run; another build or kernel moves them, so compare what was counted together.
The kernel is downloaded once, to ${XDG_CACHE_HOME:-~/.cache}/vibebalancer-count: remove that folder for a newer one.
"""
import argparse
import fcntl
import json
import lzma
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import run  # first: says where the harness is
import peers
from harness import BUILD, Failed, to_yaml

ROWS = {  # backends, clients, seconds, and what else run.wrk takes
    "get": (run.FEW_BACKENDS, run.FEW_CLIENTS, 1, {}),
    "close": (run.FEW_BACKENDS, run.FEW_CLIENTS, 1, {"close": True}),
    "response": (run.FEW_BACKENDS, 16, 2, {"path": f"/{1 << 20}"}),  # longer: there are few
    "post": (run.FEW_BACKENDS, run.FEW_CLIENTS, 1, {"body": 1 << 16}),
    "backends": (run.MANY_BACKENDS, run.FEW_CLIENTS, 1, {})}
MODES = {"wake": 0.3, "batch": 0.01}  # what the kernel's accounting may be off: in wake it skips looks at its clock
SLACK = 300000  # instructions that may be so in any case
CPU_LIMIT, LIMIT = 300, 900  # seconds for one machine, of CPU and by the clock
PORT, BACKEND_PORT = 8080, 9000
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibebalancer-count"
KERNEL = CACHE / "vmlinux"
QEMU = ("qemu-system-x86_64 -accel tcg,thread=single,tb-size=256 -icount shift=0,sleep=off -cpu EPYC-Milan,-erms,-fsrm "
        "-smp 1 -m 1024 -machine pc,hpet=off,vmport=off -nodefaults -no-user-config -display none -no-reboot "
        "-rtc base=2024-01-01T00:00:00,clock=vm -seed 1").split()
APPEND = "console=ttyS0 quiet loglevel=4 nokaslr nowatchdog panic=-1 tsc=reliable tsc_early_khz=1000000"

LOOPS, COPIED = 1000000, 4096
CHECK_COUNT = 2 * LOOPS + 11  # of the user's instructions from the first stop's return to the second stop
CHECK = f"""
.globl _start
_start: mov $39, %eax  # getpid
        syscall
        mov %eax, %ebx
        movb $1, from(%rip)  # the pages are there before it counts
        movb $1, to(%rip)
        call stop
        mov ${LOOPS}, %ecx
1:      sub $1, %ecx
        jnz 1b
        mov ${COPIED}, %ecx
        lea from(%rip), %rsi
        lea to(%rip), %rdi
        rep movsb
        call stop
stop:   mov %ebx, %edi
        mov $19, %esi  # SIGSTOP
        mov $62, %eax  # kill
        syscall
        ret
.lcomm from, {COPIED}
.lcomm to, {COPIED}
"""

# ---- the kernel ------------------------------------------------------------------------------------------------------


def output(*command, **options):
    result = subprocess.run(command, stdout=subprocess.PIPE, **options)
    if result.returncode != 0:
        raise Failed(f"`{shlex.join(map(str, command))}` ended with status {result.returncode}")
    return result.stdout


def fetch_kernel():
    """Debian's, unpacked; it is not installed here."""
    package = re.search(rb"Depends: (linux-image-\S+)", output("apt-cache", "depends", "linux-image-amd64"))
    if not package:
        raise Failed("apt knows no linux-image-amd64: `apt-get update` as root, on Debian for amd64")
    print(f"downloading {package[1].decode()} to {CACHE}", file=sys.stderr)
    output("apt-get", "-q", "download", package[1].decode(), cwd=CACHE)
    file, = CACHE.glob("linux-image-*.deb")
    archive = output("dpkg-deb", "--fsys-tarfile", file)
    image = output("tar", "-xO", "--wildcards", "./boot/vmlinuz-*", input=archive)
    file.unlink()
    at = image.find(b"\xfd7zXZ\0")
    kernel = lzma.LZMADecompressor().decompress(image[at:]) if at >= 0 else b""
    if not kernel.startswith(b"\x7fELF"):
        raise Failed(f"{file.name}: no kernel that is compressed by xz, as those of Debian 12 are")
    new = KERNEL.with_suffix(".new")
    new.write_bytes(kernel)
    new.replace(KERNEL)


def structures(kernel):
    """{structure: {member: offset in bytes}} by the kernel's BTF, which has its types."""
    start = kernel.find(struct.pack("<HBBI", 0xEB9F, 1, 0, 24))
    if start < 0:
        raise Failed(f"{KERNEL} has no BTF: the offsets of its structures are not known")
    types, types_size, strings, _ = struct.unpack_from("<4I", kernel, start + 8)

    def name(offset):
        first = start + 24 + strings + offset
        return kernel[first:kernel.index(b"\0", first)].decode()
    # by its kind, what follows a type's first 12 bytes: once, and for each element
    behind = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0),
              19: (0, 12)}
    found, at, end = {}, start + 24 + types, start + 24 + types + types_size
    while at < end:
        label, info, _ = struct.unpack_from("<3I", kernel, at)
        kind, elements, at = info >> 24 & 31, info & 0xFFFF, at + 12
        if kind == 4:
            members = (struct.unpack_from("<3I", kernel, at + 12 * i) for i in range(elements))
            found.setdefault(name(label), {name(member): (bits & 0xFFFFFF) // 8 for member, _, bits in members})
        once, each = behind.get(kind, (0, 0))
        at += once + each * elements
    return found


def plugin_arguments(folder):
    """Where the plugin finds the kernel's switch and accounting; kept beside the kernel."""
    file = KERNEL.with_suffix(".json")
    if not KERNEL.exists():
        file.unlink(missing_ok=True)
        fetch_kernel()
    if not file.exists():
        at = {name: address for address, name in re.findall(r"^(\w{16}) \w (\w+)$", boot(folder, [], "MODES="), re.M)}
        try:
            has = structures(KERNEL.read_bytes())
            known = {"sp": has["task_struct"]["thread"] + has["thread_struct"]["sp"],
                     "runtime": has["task_struct"]["se"] + has["sched_entity"]["sum_exec_runtime"],
                     "switch": at["__switch_to_asm"], "stat": at["proc_pid_schedstat"]}
        except (KeyError, struct.error) as error:
            raise Failed(f"{KERNEL}: this kernel is not understood: it has no {error}") from None
        file.write_text(json.dumps(known))
    return ",".join(f"{key}={value}" for key, value in json.loads(file.read_text()).items())


# ---- the machine -----------------------------------------------------------------------------------------------------


def put(root, file, where=None):
    """The file and the libraries that it needs, at the same places in the machine."""
    target = root / str(where or file)[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)
    for library in re.findall(r"/[^\s()]+", subprocess.run(["ldd", file], capture_output=True, text=True).stdout):
        if library != str(file) and not (root / library[1:]).exists():
            put(root, library)


def initramfs(folder, files, plan):
    root = folder / "root"
    for name in ("proc", "sys", "dev", "run", "tmp", "etc", "var/log/nginx", "var/lib/nginx"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for file in files:
        put(root, file)
    for name in ("passwd", "group"):
        put(root, f"/etc/{name}")
    put(root, shutil.which("busybox"), "/bin/busybox")
    put(root, peers.HERE / "count_guest.sh", "/init")
    (root / "init").chmod(0o755)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (root / "plan").write_text(plan + "\n")
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = output(*"cpio -o -H newc -R 0:0 --quiet --reproducible".split(), cwd=root, input=names.encode())
    shutil.rmtree(root)
    (folder / "initrd").write_bytes(archive)
    return folder / "initrd"


def boot(folder, files, plan, arguments=None):
    """What the machine says; with the plugin's arguments, its lines are in folder/counters."""
    command = ["setpriv", "--pdeathsig", "KILL", "prlimit", f"--cpu={CPU_LIMIT}", *QEMU, "-kernel", KERNEL,
               "-append", APPEND, "-initrd", initramfs(folder, files, plan), "-serial", f"file:{folder}/serial"]
    if arguments:
        command += ["-plugin", f"{BUILD}/bench_count.so,out={folder}/counters,{arguments}"]
    with open(folder / "qemu", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = "not in time"
        finally:
            process.kill()
            process.wait()
    text = (folder / "serial").read_text(errors="replace").replace("\r", "") if (folder / "serial").exists() else ""
    if status != 0 or "\n@end" not in text:
        said = re.sub(r".*TCG doesn't support requested feature.*\n", "", (folder / "qemu").read_text())
        raise Failed(f"the machine failed, qemu's status: {status}\n{said}{text[max(text.find('@failed'), 0):]}")
    return text


# ---- what runs there -------------------------------------------------------------------------------------------------


@contextmanager
def only_written():
    """The functions of run.py and peers.py write configurations, and what they would start is listed."""
    commands = []

    @contextmanager
    def program(port, *command):
        commands.append([str(word) for word in command])
        yield SimpleNamespace(port=port, pid=0)

    @contextmanager
    def balancer(folder, pools, config):
        file = folder / "vibebalancer.yaml"
        file.write_text(to_yaml({"listen": f"127.0.0.1:{PORT}", "workers": 1, "pools": pools, **config}) + "\n")
        with program(PORT, BUILD / "vibebalancer", "-c", file, "--name", "bench") as process:
            yield SimpleNamespace(port=PORT, worker_pids=lambda: [process.pid])

    def started(command, **_):
        commands.append([str(word) for word in command])
        return SimpleNamespace(returncode=0, stdout="figures 1 1 0\n")
    same = {"program": program, "free_port": lambda: PORT}
    with patch.multiple(peers, **same), patch.multiple(run, **same, Balancer=balancer, children_of=lambda pid: [pid]):
        with patch.object(run.subprocess, "run", started):
            yield commands


def planned(folder, proxy, row, modes):
    """The files of the machine, and what count_guest.sh is to do."""
    backends, clients, seconds, load = ROWS[row]
    with only_written() as commands:
        with run.PROXIES[proxy](folder, [run.Address(i, BACKEND_PORT) for i in range(backends)]):
            run.wrk(PORT, clients, seconds, **load)
    commands.append([str(BUILD / "bench_backend"), str(BACKEND_PORT), str(backends)])
    output("gcc", "-nostdlib", "-static", "-o", folder / "check", "-xassembler", "-", input=CHECK.encode())
    files = [folder / "check"]
    for words in commands:
        words[0] = os.path.abspath(shutil.which(words[0]))
        files += [word for word in words if os.path.isfile(word)]
    functions = dict(zip(("proxy", "load", "backends"), map(shlex.join, commands)))
    values = {"CHECK": folder / "check", "BACKENDS": backends, "BACKEND_PORT": f"{BACKEND_PORT:04X}",
              "PORT": f"{PORT:04X}", "WORKER": "child" if proxy in ("VibeBalancer", "nginx") else "self",
              "MODES": " ".join(modes)}
    lines = [f"{name}() {{ exec {command}; }}" for name, command in functions.items()]
    lines += [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    return files, "\n".join(lines)


# ---- the counts ------------------------------------------------------------------------------------------------------


def difference(reads, label):
    """Between the readings before and after, each of all threads: the kernel's clock, and the plugin's counters."""
    rows = [row for name, row in reads if name == label]
    half = len(rows) // 2
    return [sum(after) - sum(before) for before, after in zip(zip(*rows[:half]), zip(*rows[half:]))]


def count(folder, arguments, proxy, row, modes):
    """{mode: {figure: value}}"""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files, plan = planned(folder, proxy, row, modes)
    text = boot(folder, files, plan, arguments)
    clocks = re.findall(r"^@read (\w+) (\d+) ", text, re.M)
    lines = [list(map(int, line.split())) for line in (folder / "counters").read_text().splitlines()]
    if len(clocks) != len(lines):
        raise Failed(f"{len(clocks)} readings of schedstat, and the plugin has seen {len(lines)}")
    reads = [(label, [int(clock), *line]) for (label, clock), line in zip(clocks, lines)]
    _, user, _, iterated, _ = difference(reads, "check")
    if abs(user - CHECK_COUNT) > 100 or abs(iterated - user - COPIED) > 100:
        raise Failed(f"the check has {CHECK_COUNT} instructions and {COPIED} copies; "
                     f"{user} and {iterated - user} were counted")
    figures = {}
    for mode, requests, errors in re.findall(r"^@load (\w+) figures (\d+) \d+ (\d+)$", text, re.M):
        clock, user, kernel, *iterated = difference(reads, mode)
        if abs(sum(iterated) - clock) > MODES[mode] * clock + SLACK:
            raise Failed(f"{mode}: {sum(iterated)} were counted, and the kernel's clock has {clock}")
        if errors != "0" or requests == "0":
            raise Failed(f"{mode}: {requests} requests, {errors} failed")
        n = int(requests)
        figures[mode] = {"user": user / n, "kernel": kernel / n, "total": (user + kernel) / n, "requests": n}
    if set(figures) != set(modes):
        raise Failed(f"no figures of the load:\n{text[-2000:]}")
    return figures


def print_rows(row, modes, counted):
    for mode in modes:
        for proxy, figures in counted.items():
            one = figures[mode]
            ratio = ""
            if proxy != "VibeBalancer" and "VibeBalancer" in counted:
                ratio = f"{counted['VibeBalancer'][mode]['total'] / one['total']:.2f}"
            numbers = [f"{one[figure]:,.0f}" for figure in ("user", "kernel", "total")]
            print("| " + " | ".join([row, mode, proxy, *numbers, ratio]) + " |", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; may be given again")
    parser.add_argument("--only", choices=run.PROXIES, help="only this proxy")
    parser.add_argument("--mode", choices=MODES, help="only this one")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args()


def main():
    options = parse()
    peers.need("nginx", "haproxy", "wrk", "qemu-system-x86_64", "busybox", "cpio", "gcc", "apt-get",
               *(str(BUILD / name) for name in ("vibebalancer", "bench_relay", "bench_backend", "bench_count.so")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of what ends the machine
    os.umask(0o022)  # nginx's worker is somebody else
    CACHE.mkdir(parents=True, exist_ok=True)
    modes, failed, everything = [options.mode] if options.mode else list(MODES), False, {}
    with open(CACHE / "lock", "w") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another count is under way in {CACHE}") from None
        folder = CACHE / "run"  # always the same, and with it what is counted
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        arguments = plugin_arguments(folder)
        print("| row | mode | proxy | user | kernel | total | VibeBalancer ÷ |\n|---|---|---|" + "--:|" * 4, flush=True)
        for row in options.row or ROWS:
            counted = everything[row] = {}
            for proxy in [options.only] if options.only else run.PROXIES:
                try:
                    counted[proxy] = count(folder, arguments, proxy, row, modes)
                except Failed as error:
                    print(f"{row}, {proxy}: {error}", file=sys.stderr)
                    failed = True
            print_rows(row, modes, counted)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"count.sh: {failure}")
