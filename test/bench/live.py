#!/usr/bin/env python3
"""Three backends, one of them slow, behind VibeBalancer, HAProxy and nginx: how long one waits, and who is asked.

    sh test/bench/live.sh [--rounds N] [--seconds S] [--json FILE]      builds first

All run at the same time, and each is measured in each round, in another order each time: so what else this machine does
meets them alike. Two kinds of load:

closed   as many requests as there are connections: a new one begins when one ends. Who sends little to the slow one
         gets more done.
open     requests begin at a constant rate, whatever becomes of those before; latency counts from when one was due.

The figures are medians over the rounds. Nobody logs requests or checks health, all keep connections to the backends.
"""
import argparse
import asyncio
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

from peers import haproxy, need, nginx  # first: says where the harness is
from harness import BUILD, TIMEOUT, Balancer, Demo, to_yaml, web

NAMES = "abc"
SLOW = "c"
KEYS = 1000  # different targets, for those who go by it
WARM_UP = 0.25  # of a run, before what is counted

# ---- the load --------------------------------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """One request at a time; reads no more of HTTP than is needed."""

    def __init__(self, load):
        self.load, self.transport, self.buffer, self.due = load, None, b"", None

    def connection_made(self, transport):
        self.transport = transport
        self.load.is_free(self)

    def send(self, due):
        self.due = due
        self.transport.write(b"GET /?k=%d HTTP/1.1\r\nHost: bench\r\n\r\n" % random.randrange(KEYS))

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        fields = dict(line.lower().split(b": ", 1) for line in self.buffer[:end].split(b"\r\n")[1:])
        if len(self.buffer) < end + 4 + int(fields[b"content-length"]):
            return
        ok, self.buffer = self.buffer.startswith(b"HTTP/1.1 200 "), b""
        self.load.is_done(self.due, fields.get(b"x-backend", b"?").decode() if ok else None)
        self.due = None
        self.load.is_free(self)

    def connection_lost(self, error):
        if self.due is not None:
            self.load.is_done(self.due, None)
        self.load.is_lost(self)


class Load:
    """From `connections` connections; closed where `rate` is None, else so many requests a second."""

    def __init__(self, port, connections, rate, seconds):
        self.port, self.connections, self.rate, self.seconds = port, connections, rate, seconds
        self.latencies, self.served, self.errors = [], Counter(), 0
        self.free, self.late, self.all = deque(), deque(), set()
        self.counts_from, self.running, self.idle = None, False, None

    def is_free(self, connection):
        self.all.add(connection)
        if self.late:
            connection.send(self.late.popleft())
        elif self.running and self.rate is None:
            connection.send(time.monotonic())
        else:
            self.free.append(connection)
            self._look()

    def _look(self):
        """Are those answered that had begun? What the slow one had at the end counts like all others."""
        if not self.running and len(self.free) == len(self.all):
            self.idle.set()

    def is_done(self, due, backend):
        if due < self.counts_from:
            return
        if backend is None:
            self.errors += 1
            return
        self.latencies.append(time.monotonic() - due)
        self.served[backend] += 1

    def is_lost(self, connection):
        self.all.discard(connection)
        if connection in self.free:
            self.free.remove(connection)
        if self.running:
            asyncio.ensure_future(self._connect())
        self._look()

    async def _connect(self):
        await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self.port)

    async def run(self):
        self.idle = asyncio.Event()
        for _ in range(self.connections):
            await self._connect()
        begin = time.monotonic()
        self.counts_from, end = begin + WARM_UP * self.seconds, begin + (1 + WARM_UP) * self.seconds
        self.idle.clear()
        self.running = True
        if self.rate is None:
            while self.free:
                self.free.popleft().send(time.monotonic())
            await asyncio.sleep(end - time.monotonic())
        else:
            await self._at_a_rate(begin, end)
        self.running = False
        self._look()
        await asyncio.wait_for(self.idle.wait(), TIMEOUT)
        for connection in list(self.all):
            connection.transport.abort()
        return self._result()

    async def _at_a_rate(self, begin, end):
        n = 0
        while (due := begin + n / self.rate) < end:
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if self.free:
                self.free.popleft().send(due)  # the one that has been free longest: all workers get some
            else:
                self.late.append(due)
            n += 1

    def _result(self):
        if len(self.latencies) < 2:
            raise SystemExit(f"port {self.port} has answered nothing: {self.errors} errors")
        cuts = statistics.quantiles(self.latencies, n=100, method="inclusive")
        total = sum(self.served.values())
        return {"errors": self.errors, "per_second": total / self.seconds,
                "mean_ms": 1000 * statistics.fmean(self.latencies), "p50_ms": 1000 * cuts[49],
                "p99_ms": 1000 * cuts[98], "slow_share": self.served[SLOW] / total}


# ---- the balancers ---------------------------------------------------------------------------------------------------


def pool(policy, backends):
    options = {"hash": {"key": "uri"}} if policy == "hash" else {}
    return web(backends, balance=policy, **options)


@contextmanager
def ours(folder, backends, policy, workers):
    with Balancer(folder, pool(policy, backends), workers=workers) as lb:
        yield lb


def is_known(policy, folder):
    """Does this build have the policy?"""
    file = folder / "check.yaml"
    file.write_text(to_yaml({"listen": 8080, "pools": pool(policy, ["127.0.0.1:1"])}) + "\n")
    return subprocess.run([BUILD / "vibebalancer", "--check", "-c", file], capture_output=True).returncode == 0


class Contestant:
    def __init__(self, balancer, policy, workers, start, *arguments, **options):
        self.balancer, self.policy, self.workers = balancer, policy, workers
        self.start = lambda folder, backends: start(folder, backends, *arguments, workers=workers, **options)
        self.results = {"closed": [], "open": []}
        self.port = None

    def row(self):
        medians = {kind: {figure: statistics.median(result[figure] for result in results) for figure in results[0]}
                   for kind, results in self.results.items()}
        return {"balancer": self.balancer, "policy": self.policy, "workers": self.workers, "median": medians,
                "rounds": self.results}


def contestants(folder):
    policies = [name for name in ("round_robin", "random", "p2c", "least_conn", "fastest", "least_load", "hash")
                if is_known(name, folder)]
    found = [Contestant("VibeBalancer", name, 1, ours, name) for name in policies]
    found += [Contestant("VibeBalancer", name, 4, ours, name) for name in policies if name in ("least_conn", "fastest")]
    for method in ("roundrobin", "leastconn", "random"):
        found.append(Contestant("HAProxy", method, 1, haproxy, method))
    found.append(Contestant("HAProxy", "leastconn", 4, haproxy, "leastconn"))
    found.append(Contestant("nginx", "round robin", 1, nginx, ""))
    found.append(Contestant("nginx", "least_conn", 1, nginx, "least_conn;"))
    found.append(Contestant("nginx", "least_conn", 4, nginx, "least_conn;"))
    found.append(Contestant("nginx", "least_conn, zone", 4, nginx, "least_conn;", zone=True))
    return found


# ---- all of it -------------------------------------------------------------------------------------------------------


def measure(all_of_them, options):
    for turn in range(options.rounds):
        for one in random.sample(all_of_them, len(all_of_them)):
            for kind, rate in (("closed", None), ("open", options.rate)):
                load = Load(one.port, options.connections, rate, options.seconds)
                one.results[kind].append(asyncio.run(load.run()))
        print(f"round {turn + 1} of {options.rounds} is over", file=sys.stderr)


def cells(figures):
    return (f"{figures['mean_ms']:.1f} | {figures['p50_ms']:.1f} | {figures['p99_ms']:.1f} | "
            f"{figures['slow_share']:.1%}")


def table(rows, options):
    yield (f"Backends {options.fast}, {options.fast}, {options.slow}; closed: {options.connections} connections, open: "
           f"{options.rate}/s; medians of {options.rounds} rounds of {options.seconds} s.\n")
    yield "| balancer | policy | workers | closed: req/s | mean ms | p50 ms | p99 ms | to the slow one | " \
          "open: mean ms | p50 ms | p99 ms | to the slow one | errors |"
    yield "|---|---|" + "--:|" * 11
    for row in rows:
        closed, opened = row["median"]["closed"], row["median"]["open"]
        errors = sum(result["errors"] for results in row["rounds"].values() for result in results)
        yield (f"| {row['balancer']} | {row['policy']} | {row['workers']} | {closed['per_second']:.0f} | "
               f"{cells(closed)} | {cells(opened)} | {errors} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.9, help="of each run; a quarter more before is not counted")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=int, default=500, help="requests a second of the open loop")
    parser.add_argument("--fast", default="10ms", help="delay of two of the backends")
    parser.add_argument("--slow", default="100ms", help="delay of the third")
    parser.add_argument("--json", type=Path, help="a file for all figures, of each round too")
    return parser.parse_args()


def main():
    options = parse()
    need("nginx", "haproxy")
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))  # what balancers log
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb-bench-")))
        backends = [stack.enter_context(Demo(name, "--delay", options.slow if name == SLOW else options.fast))
                    for name in NAMES]
        all_of_them = contestants(folder)
        for i, one in enumerate(all_of_them):
            (own := folder / str(i)).mkdir()
            one.port = stack.enter_context(one.start(own, backends)).port
        measure(all_of_them, options)
    rows = [one.row() for one in all_of_them]
    print("\n".join(table(rows, options)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
