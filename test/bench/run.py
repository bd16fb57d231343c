#!/usr/bin/env python3
"""What a request costs in VibeBalancer, nginx, HAProxy and a bare relay, with one worker or thread each.

    sh test/bench/run.sh [--rounds N] [--seconds S] [--row NAME]... [--json FILE]      builds first

Only the process that serves is counted: instructions and cycles where the kernel has the processor's counters, and its
CPU time. Where that is all there is, mind that its split into user and system is sampled by the kernel's clock tick,
and that a slower moment of the machine shows. In each round all have the same load, one after the other, each time in
another order. Figures are medians over the rounds; ratios are medians of each round's ratio: below 1 VibeBalancer needs
less (of requests/s it has fewer).

Rows:
  get        small GET, connections kept on both sides, 64 clients, 3 backends
  close      a new client connection for each request
  response   responses of 1 MiB, 16 clients
  post       bodies of 64 KiB, 64 clients
  backends   get with 1,000 backends against 3
  active     get with 8,000 clients that all have a request under way against 64
  idle       memory for each of 8,000 clients that have had a response and do nothing
  latency    small GET at half of the rate at which the slower of nginx and HAProxy is saturated, 64 clients

The proxies have the first CPU for themselves, where there are two or more; the load and the backends, a process that
costs little more than its system calls, have the others. All add the fields that they add by default: VibeBalancer says
who the client is (X-Forwarded-For, ...), names the request and itself; nginx and HAProxy do not. The relay parses
nothing and opens a connection to a backend for each client's: it is the floor of what the kernel asks.
"""
import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

from peers import HERE, haproxy, need, nginx, program  # first: says where the harness is
from harness import BUILD, TIMEOUT, Balancer, children_of, eventually, free_port, is_refused, web

MANY_BACKENDS, MANY_CLIENTS, FEW_BACKENDS, FEW_CLIENTS = 1000, 8000, 3, 64
CLIENTS = MANY_CLIENTS + 500  # for which all are set up
DESCRIPTORS = 2 * CLIENTS + 256
IDLE = 10000  # connections to backends that may be kept
ENDLESS = 1000000  # requests on a connection
WINDOW = 0.25  # seconds of a run for latency: a machine that pauses spoils few of many, and not their median
EVENTS = ("instructions:u", "instructions:k", "cycles:u", "cycles:k")
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")

# ---- CPUs ------------------------------------------------------------------------------------------------------------

CPUS = sorted(os.sched_getaffinity(0))
PROXY_CPUS, OTHER_CPUS = (CPUS[:1], CPUS[1:]) if len(CPUS) > 1 else (CPUS, CPUS)


@contextmanager
def on(cpus):
    """What is started meanwhile runs there."""
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, OTHER_CPUS)


def stolen():
    """Of the time of all CPUs since they were started: what a hypervisor gave to others, and all, in ticks."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


# ---- what is counted -------------------------------------------------------------------------------------------------


def cpu_us(pid):
    """User and system time of all its threads, sampled by the tick; and their sum, exact where there is schedstat."""
    user = system = exact = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) * TICK_US
        system += int(fields[12]) * TICK_US
        if (task / "schedstat").exists():
            exact += int((task / "schedstat").read_text().split()[0]) / 1000
    return user, system, exact or user + system


def memory_kib(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {field.lower(): int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1]) for field in ("Rss", "Pss")}


@contextmanager
def perf(pid, file):
    """Counts from here to the end of the block."""
    command = ["perf", "stat", "-x,", "-o", file, "-e", ",".join(EVENTS), "-p", str(pid), "--", "sh", "-c", "echo; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()  # perf counts before it starts what it is to wait for
        yield
        process.stdin.close()
        process.wait(TIMEOUT)


def perf_figures(file):
    """None where an event could not be counted."""
    found = {}
    for line in file.read_text().splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2] in EVENTS:
            if not fields[0].isdigit():
                return None
            found[fields[2]] = int(fields[0])
    return found if len(found) == len(EVENTS) else None


def has_counters(folder):
    if not shutil.which("perf"):
        return False
    with perf(os.getpid(), folder / "perf"):
        pass
    return perf_figures(folder / "perf") is not None


class Count:
    """What `pid` used in a block; for_each(n) says it for each of n requests."""

    def __init__(self, pid, folder, counters):
        self.pid, self.file, self.counters = pid, folder / "perf", counters
        self.totals = {}

    def __enter__(self):
        self._perf = ExitStack()
        if self.counters:
            self._perf.enter_context(perf(self.pid, self.file))
        self._before = cpu_us(self.pid)
        return self

    def __exit__(self, *_):
        user, system, total = (after - before for after, before in zip(cpu_us(self.pid), self._before))
        self._perf.close()
        share = user / (user + system) if user + system else 0
        self.totals = {"user_us": total * share, "system_us": total * (1 - share), "cpu_us": total}
        if self.counters:
            self._add_counters(perf_figures(self.file))

    def _add_counters(self, counted):
        for name, value in counted.items():
            self.totals[name.replace(":", "_")] = value
        for name in ("instructions", "cycles"):
            self.totals[name] = counted[f"{name}:u"] + counted[f"{name}:k"]

    def for_each(self, n):
        return {name: value / n for name, value in self.totals.items()}


# ---- who is measured -------------------------------------------------------------------------------------------------


class Address:
    """A backend's; the i-th, as loopback.h has them."""

    def __init__(self, i, port):
        self.name, self.address = f"b{i}", f"127.1.{i // 250}.{i % 250 + 1}:{port}"


@contextmanager
def vibebalancer(folder, backends):
    config = {"limits": {"requests_per_connection": ENDLESS}, "segment": {"backends": max(256, len(backends))}}
    pools = web([{"address": backend.address, "name": backend.name} for backend in backends], keepalive={"idle": IDLE},
                circuit_breaker={"max_pending": 0})  # like the others: any number may be connecting
    with redirect_stdout(StringIO()):  # what it logged
        with Balancer(folder, pools, config=config) as lb:
            yield lb.port, lb.worker_pids()[0]


@contextmanager
def with_nginx(folder, backends):
    with nginx(folder, backends, clients=CLIENTS, idle=IDLE) as process:
        yield process.port, eventually(lambda: children_of(process.pid), "nginx has a worker")[0]


@contextmanager
def with_haproxy(folder, backends):
    with haproxy(folder, backends, clients=CLIENTS) as process:
        yield process.port, process.pid


@contextmanager
def relay(folder, backends):
    backend_port = backends[0].address.rpartition(":")[2]
    with program(port := free_port(), BUILD / "bench_relay", port, backend_port, len(backends)) as process:
        yield process.port, process.pid


PROXIES = {"VibeBalancer": vibebalancer, "nginx": with_nginx, "HAProxy": with_haproxy, "relay": relay}


@contextmanager
def serving(addresses):
    """That many backends, in a process."""
    port = free_port()
    with subprocess.Popen([BUILD / "bench_backend", str(port), str(addresses)]) as process:
        try:
            eventually(lambda: process.poll() is not None or not is_refused(port, "127.1.0.1"), "backends listen")
            yield [Address(i, port) for i in range(addresses)]
        finally:
            process.kill()


class Proxy:
    """One that runs."""

    def __init__(self, name, folder, port, pid):
        self.name, self.folder, self.port, self.pid = name, folder, port, pid


@contextmanager
def started(name, folder, addresses):
    """With backends of its own: how many connections others keep to theirs is nothing to it."""
    own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    own.chmod(0o755)  # nginx's worker is somebody else
    with ExitStack() as stack:
        backends = stack.enter_context(serving(addresses))
        with on(PROXY_CPUS):
            port, pid = stack.enter_context(PROXIES[name](own, backends))
        yield Proxy(name, own, port, pid)


# ---- the loads -------------------------------------------------------------------------------------------------------


def wrk(port, clients, seconds, path="/", close=False, body=None):
    """Requests, errors, and seconds."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "-s", HERE / "wrk.lua"]
    command += ["-H", "Connection: close"] if close else []
    command += [f"http://127.0.0.1:{port}{path}"] + (["--", str(body)] if body else [])
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + TIMEOUT)
    figures = re.search(r"^figures (\d+) (\d+) (\d+)$", result.stdout, re.M)
    if result.returncode != 0 or not figures or figures[1] == "0":
        raise SystemExit(f"wrk has failed: {result.stdout}{result.stderr}")
    return int(figures[1]), int(figures[3]), int(figures[2]) / 1e6


class Clients:
    """Connections that are open and have had a response each."""

    def __init__(self, port, clients):
        self.process = subprocess.Popen([BUILD / "bench_load", str(port), str(clients)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        self._answer()
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT)
        finally:
            self.process.kill()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("bench_load has failed")
        return line

    def play(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        requests, errors, seconds, p50, p99, p999 = map(float, self._answer().split())
        return {"requests": int(requests), "errors": int(errors), "seconds": seconds, "p50_us": p50, "p99_us": p99,
                "p999_us": p999}


# ---- the rows --------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, folder, options, counters):
        self.folder, self.options, self.counters = folder, options, counters
        self.rows = []  # each {"row", "title", "rounds": [{proxy: {figure: value}}]}

    def count(self, proxy):
        return Count(proxy.pid, proxy.folder, self.counters)

    def start(self, stack, backends):
        return [stack.enter_context(started(name, self.folder, backends)) for name in PROXIES]

    def play(self, row, title, proxies, measure, rounds=None):
        """measure(proxy) for each of them in each round."""
        n, rounds = rounds or self.options.rounds, []
        for _ in range(n):
            rounds.append({proxy.name: measure(proxy) for proxy in random.sample(proxies, len(proxies))})
        self.add(row, title, rounds)

    def add(self, row, title, rounds):
        self.rows.append({"row": row, "title": title, "rounds": rounds})
        print(f"{row}: {title}", file=sys.stderr)

    def by_wrk(self, proxy, clients=FEW_CLIENTS, **load):
        with self.count(proxy) as count:
            requests, errors, seconds = wrk(proxy.port, clients, self.options.seconds, **load)
        return {**count.for_each(requests), "requests_per_second": requests / seconds, "errors": errors}

    def by_clients(self, proxy, clients):
        with Clients(proxy.port, clients) as load:
            load.play("closed 0.5")  # so that there are as many connections to backends as it takes
            with self.count(proxy) as count:
                result = load.play(f"closed {self.options.seconds}")
        return {**count.for_each(result["requests"]), "requests_per_second": result["requests"] / result["seconds"],
                "errors": result["errors"], "p99_us": result["p99_us"]}

    def growth(self, row, title, few, many, measure):
        """`many` against `few`, which are measured beside each other; each is (what to measure, ...) by proxy name."""
        rounds = []
        for _ in range(self.options.rounds):
            figures = {}
            for name in random.sample(list(PROXIES), len(PROXIES)):
                small, large = measure(*few[name]), measure(*many[name])
                unit = "cycles" if self.counters else "cpu_us"
                figures[name] = {**large, f"few_{unit}": small[unit], "growth": large[unit] / small[unit],
                                 "errors": small["errors"] + large["errors"]}
            rounds.append(figures)
        self.add(row, title, rounds)


def run_get(bench, proxies):
    bench.play("get", "small GET", proxies, bench.by_wrk)


def run_close(bench, proxies):
    bench.play("close", "a new connection for each request", proxies, lambda proxy: bench.by_wrk(proxy, close=True))


def run_response(bench, proxies):
    bench.play("response", "1 MiB responses", proxies, lambda proxy: bench.by_wrk(proxy, 16, path=f"/{1 << 20}"))


def run_post(bench, proxies):
    bench.play("post", "64 KiB bodies", proxies, lambda proxy: bench.by_wrk(proxy, body=1 << 16))


def run_backends(bench, proxies):
    with ExitStack() as stack:
        many = bench.start(stack, MANY_BACKENDS)
        bench.growth("backends", "1,000 backends against 3", {proxy.name: (proxy,) for proxy in proxies},
                     {proxy.name: (proxy,) for proxy in many}, bench.by_wrk)


def run_active(bench, proxies):
    bench.growth("active", "8,000 active clients against 64", {proxy.name: (proxy, FEW_CLIENTS) for proxy in proxies},
                 {proxy.name: (proxy, MANY_CLIENTS) for proxy in proxies}, bench.by_clients)


def run_idle(bench, _):
    """Of processes that are new each time: what had more clients before has memory left for the next ones."""
    def measure(name):
        with started(name, bench.folder, FEW_BACKENDS) as proxy:
            with Clients(proxy.port, FEW_CLIENTS) as load:
                load.play("closed 0.2")
            before = memory_kib(proxy.pid)
            with Clients(proxy.port, MANY_CLIENTS):
                after = memory_kib(proxy.pid)
            return {"rss_kib_each": (after["rss"] - before["rss"]) / MANY_CLIENTS,
                    "pss_kib_each": (after["pss"] - before["pss"]) / MANY_CLIENTS, "pss_mib": after["pss"] / 1024}
    rounds = [{name: measure(name) for name in PROXIES} for _ in range(bench.options.rounds)]
    bench.add("idle", "8,000 idle clients", rounds)


def run_latency(bench, proxies):
    def saturation(proxy):
        requests, _, seconds = wrk(proxy.port, FEW_CLIENTS, bench.options.seconds)
        return requests / seconds
    rate = int(min(saturation(proxy) for proxy in proxies if proxy.name in ("nginx", "HAProxy")) / 2)

    with ExitStack() as stack:
        loads = {proxy.name: stack.enter_context(Clients(proxy.port, FEW_CLIENTS)) for proxy in proxies}

        def measure(proxy):
            result = loads[proxy.name].play(f"open {rate} {WINDOW}")
            return {figure: result[figure] for figure in ("p50_us", "p99_us", "errors")}
        windows = max(1, round(bench.options.rounds * bench.options.seconds / WINDOW))
        bench.play("latency", f"{rate:,} small GETs a second", proxies, measure, windows)


ROWS = {"get": run_get, "close": run_close, "response": run_response, "post": run_post, "backends": run_backends,
        "active": run_active, "idle": run_idle, "latency": run_latency}

# ---- the table -------------------------------------------------------------------------------------------------------

FIGURES = {  # figure: (label, digits, has a ratio)
    "instructions_u": ("user instructions", 0, True), "instructions_k": ("kernel instructions", 0, True),
    "instructions": ("instructions", 0, True), "cycles": ("cycles", 0, True),
    "user_us": ("user µs", 2, True), "system_us": ("system µs", 2, True), "cpu_us": ("CPU µs", 2, True),
    "growth": ("times as much", 2, False), "requests_per_second": ("requests/s", 0, True),
    "pss_kib_each": ("PSS each, KiB", 2, True), "rss_kib_each": ("RSS each, KiB", 2, True),
    "pss_mib": ("PSS in all, MiB", 1, True), "p50_us": ("p50 µs", 0, True), "p99_us": ("p99 µs", 0, True),
    "errors": ("errors", 0, False),
}


def median(row, name, figure):
    return statistics.median(one[name][figure] for one in row["rounds"])


def ratio(row, name, figure):
    """None where the other has nothing, as the relay's memory for a client may be."""
    pairs = [(one["VibeBalancer"][figure], one[name][figure]) for one in row["rounds"]]
    return statistics.median(ours / theirs for ours, theirs in pairs) if all(pair[1] > 0 for pair in pairs) else None


def summary(row):
    """For each figure the medians, and what VibeBalancer has of each other's."""
    found = {}
    for figure, (_, _, has_ratio) in FIGURES.items():
        if figure in row["rounds"][0]["VibeBalancer"]:
            found[figure] = {"median": {name: median(row, name, figure) for name in PROXIES}}
            if has_ratio:
                found[figure]["ratio"] = {name: ratio(row, name, figure) for name in PROXIES if name != "VibeBalancer"}
    return found


def table(rows):
    others = [name for name in PROXIES if name != "VibeBalancer"]
    yield "| " + " | ".join(["work", "for each request", *PROXIES, *(f"÷ {name}" for name in others)]) + " |"
    yield "|---|---|" + "--:|" * (len(PROXIES) + len(others))
    for row in rows:
        for figure, values in summary(row).items():
            label, digits, has_ratio = FIGURES[figure]
            if figure == "errors" and not any(values["median"].values()):
                continue
            medians = [f"{values['median'][name]:,.{digits}f}" for name in PROXIES]
            ratios = [values["ratio"][name] for name in others] if has_ratio else [None] * len(others)
            yield "| " + " | ".join([row["title"], label, *medians,
                                     *("" if one is None else f"{one:.2f}" for one in ratios)]) + " |"


# ---- all of it -------------------------------------------------------------------------------------------------------


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=1, help="of each run")
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; may be given again")
    parser.add_argument("--json", type=Path, help="a file for all figures, of each round too")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are 1 or more")
    return options


def allow_descriptors():
    """False where that many are not to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), max(hard, DESCRIPTORS)))
    except (ValueError, PermissionError):
        raise SystemExit(f"{DESCRIPTORS} open files are needed for {MANY_CLIENTS} clients, and {hard} are allowed: "
                         f"`ulimit -n {DESCRIPTORS}` as root") from None


def main():
    options = parse()
    need("nginx", "haproxy", "wrk")
    allow_descriptors()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of what ends all processes
    os.sched_setaffinity(0, OTHER_CPUS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb-bench-")))
        folder.chmod(0o755)
        counters = has_counters(folder)
        if not counters:
            print("no instructions or cycles: this kernel has none of the processor's counters, or perf is missing",
                  file=sys.stderr)
        bench = Bench(folder, options, counters)
        proxies = bench.start(stack, FEW_BACKENDS)
        before = stolen()
        for row in options.row or ROWS:
            ROWS[row](bench, proxies)
        lost, all_time = (now - then for now, then in zip(stolen(), before))
    print(f"Medians of {options.rounds} rounds of {options.seconds} s on {len(CPUS)} CPUs, of whose time others had "
          f"{lost / all_time:.1%}.\n")
    print("\n".join(table(bench.rows)))
    if options.json:
        options.json.write_text(json.dumps([{**row, "summary": summary(row)} for row in bench.rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
