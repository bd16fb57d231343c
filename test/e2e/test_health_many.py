"""A thousand backends, each checked every two seconds by the one thread (design.md 5)."""
import ipaddress
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import TIMEOUT, eventually, free_port, get

N, FAILING = 1000, 100
FIRST = ipaddress.ip_address("127.1.0.1")
INTERVAL, JITTER, FALL = 2.0, 0.1, 3
SLACK = 0.5  # how late a busy machine may make a check


@pytest.fixture
def many():
    """(hosts, port) of a server that listens on all of them"""
    port = free_port()
    server = subprocess.Popen([sys.executable, Path(__file__).parent / "servers/many.py", str(port), str(FIRST), str(N)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "listens\n"
    yield [str(FIRST + i) for i in range(N)], port
    server.terminate()
    server.wait(TIMEOUT)
    server.stdout.close()


def cpu_seconds(pid):
    """Of all threads of a process."""
    ticks = 0
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Looks:
    """What vbctl says of all backends, between two moments."""

    def __init__(self, lb):
        self.before = time.monotonic()
        self.rows = {row["address"]: row for row in lb.vbctl("backends")["backends"]}
        self.after = time.monotonic()

    def all(self, field):
        return [row[field] for row in self.rows.values()]


def test_a_thousand_backends(balancer, many):
    hosts, port = many
    lb = balancer([f"{host}:{port}" for host in hosts], config={"segment": {"backends": 1024}},
                  pool={"health": {"path": "/", "interval": "2s", "fast_interval": "500ms", "timeout": "5s",
                                   "rise": 2, "fall": FALL}})
    began = time.monotonic()
    eventually(lambda: Looks(lb).all("health") == ["up"] * N, "all are up")
    print(f"all up {time.monotonic() - began:.1f} s after the start")

    # Every one has its turn, and none has more than its due.
    first, cpu = Looks(lb), cpu_seconds(lb.pid)
    wanted = sum(first.all("checks")) + 2.5 * N
    eventually(lambda: sum(Looks(lb).all("checks")) >= wanted, "some rounds")
    last, cpu = Looks(lb), cpu_seconds(lb.pid) - cpu
    least = math.floor((last.before - first.after) / (INTERVAL * (1 + JITTER) + SLACK))
    most = math.ceil((last.after - first.before) / (INTERVAL * (1 - JITTER)))
    made = [last.rows[address]["checks"] - row["checks"] for address, row in first.rows.items()]
    took = last.after - first.before
    print(f"{sum(made)} checks, {min(made)} to {max(made)} of each, in {took:.1f} s; {cpu / took:.1%} of a core")
    assert least >= 1 and least <= min(made) and max(made) <= most, (least, most)
    assert last.all("health") == ["up"] * N and last.all("check_failures") == [0] * N
    assert cpu / took < 0.5

    # The first and the last of the list, and some between.
    failing = {f"{host}:{port}" for host in hosts[::N // FAILING]}
    began = time.monotonic()
    get(port, "/fail?" + ",".join(address.partition(":")[0] for address in failing), host=hosts[0])
    eventually(lambda: Looks(lb).all("health").count("down") == FAILING, "they are down")
    took = time.monotonic() - began
    print(f"{FAILING} down after {took:.1f} s")
    assert took < INTERVAL * (1 + JITTER) + (FALL - 1) * 0.5 * (1 + JITTER) + FALL * SLACK + 1
    look = Looks(lb)
    assert {address for address, row in look.rows.items() if row["health"] == "down"} == failing
    assert {row["last_failure"] for row in look.rows.values()} == {None, "status 500, expected 200-399"}
    assert min(look.rows[address]["check_failures"] for address in failing) >= FALL
    assert len(lb.wait_log(r"is DOWN .*: status 500", count=FAILING)) == FAILING
