"""Reloads under load, reloads while workers die, and a great many reloads: nothing is lost, doubled or left behind.

VB_RELOADS: how many reloads there are under load; 30 unless it is given, 100 to see what is promised.
VB_IDLE_RELOADS: how many without load; 100 unless it is given, 1000 to see what is promised.
"""
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from faults import Recorder
from harness import (MEASURABLE, Client, Truncated, at_once, children_of, eventually, free_port, get, memory_kib,
                     open_files, web)

RELOADS = int(os.environ.get("VB_RELOADS", "30"))
IDLE_RELOADS = int(os.environ.get("VB_IDLE_RELOADS", "100"))
WARM_UP = 20
MEMORY_KIB = 512  # that the master may grow by, whatever the number of reloads
SEGMENT_KIB = 64  # likewise the segment: more old workers may have been there at a time than before
NO_LEAK_CHECK = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}  # killed in it, it complains
CLOSE = [("Connection", "close")]
CHECKS_SOON = {"interval": "200ms", "fast_interval": "100ms", "timeout": "1s", "path": "/health"}


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@contextmanager
def again_and_again(action, pause):
    """Meanwhile, in a thread of its own, `pause` seconds after the last."""
    over = threading.Event()

    def run():
        while not over.wait(pause):
            action()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            over.set()
        running.result()


def check_counts(there, *loads):
    """Each request was counted once here and was at a backend once, whatever generation served it."""
    sent = sum(len(load.sent) for load in loads)
    there.wait_quiet()
    assert there.lb.vbctl("status")["requests"] == sent
    assert there.retried() == 0 and there.doubled() == []
    assert sum(len(recorder.seen()) for recorder in there.recorders) == sent


# ---- under load ------------------------------------------------------------------------------------------------------


def settings(there, n):
    """Those of the nth reload: other backends each time, one of them always new, with another weight and balance."""
    a, b, c = there.recorders
    chosen = [[a, b, c], [a, {"address": b, "weight": 3}], [{"address": c, "name": f"c{n}"}, a], [b, c]][n % 4]
    checks, balance = [CHECKS_SOON, "off"][n // 4 % 2], ["round_robin", "least_conn"][n % 2]
    return {"pools": web(chosen, health=checks, balance=balance), "workers": [1, 4, 2, 3][n // 2 % 4],
            "limits": {"connections_per_ip": [0, 1000][n % 2]}}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_reloads_under_load(town, method):
    """Kept connections and new ones. Zero requests fail, and none is processed twice."""
    there = town(how={"do": "delay", "delay": 0.01})
    with there.load(clients=16, methods=(method,)) as kept, \
            there.load(clients=8, methods=(method,), headers=CLOSE) as new:
        for n in range(RELOADS):
            kept.wait(30)
            there.lb.reload(**settings(there, n))
        new.wait(50)
    there.report(f"{RELOADS} reloads, kept connections", kept)
    there.report(f"{RELOADS} reloads, new connections", new)
    assert kept.failures() + new.failures() == []
    check_counts(there, kept, new)
    there.lb.wait_old_gone()
    assert there.lb.generation == RELOADS + 1


@pytest.mark.parametrize("how", ["signals", "commands"])
def test_reloads_as_fast_as_can_be_under_load(town, workers, how):
    """By signals they are asked for again while one is under way."""
    there = town(workers=workers, how={"do": "delay", "delay": 0.02})
    ask = {"signals": there.lb.hup, "commands": there.lb.reload}[how]
    with there.load(clients=8) as load, again_and_again(ask, 0.005):
        load.wait(400)
    assert load.failures() == [] and there.lb.generation > 3
    check_counts(there, load)
    there.lb.wait_old_gone()


def test_other_numbers_of_workers(town):
    """While they are fewer, all sockets are served: nobody waits in a queue that nobody looks at."""
    there = town(workers=1)
    lb = there.lb
    with there.load(clients=8) as kept, there.load(clients=4, headers=CLOSE) as new:
        for n in (4, 2, 1, 3, 8, 1, 5, 2):
            kept.wait(20)
            lb.reload(workers=n)
            assert len(lb.wait_workers()) == n
            assert at_once(40, lambda i, n=n: get(lb.port, f"/x-{n}-{i}").status) == [200] * 40
            lb.wait_old_gone()
            assert [row["index"] for row in lb.worker_rows()] == list(range(n))
    assert kept.failures() + new.failures() == []
    there.wait_quiet()
    for recorder in there.recorders:
        assert lb.backend(recorder)["errors"] == 0


def test_a_worker_that_serves_several_sockets_is_replaced(town):
    """After a shrink its successor has them all too."""
    there = town(workers=4)
    lb = there.lb
    for n in (2, 1):
        lb.reload(workers=n)
        lb.wait_old_gone()
        pids = lb.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert at_once(40, lambda i, n=n: get(lb.port, f"/x-{n}-{i}").status) == [200] * 40
        lb.wait_workers(without=pids)


def test_connections_are_shared_out_after_a_change(balancer, backend):
    lb = balancer(backend(), workers=1)
    for n in (4, 2, 3):
        lb.reload(workers=n)
        lb.wait_old_gone()
        clients = [Client(lb.port) for _ in range(12 * n)]
        assert {client.get().status for client in clients} == {200}
        held = [row["connections"] for row in lb.worker_rows()]
        assert sum(held) == 12 * n and max(held) <= 12 + 2, held
        for client in clients:
            client.close()
        eventually(lambda: lb.total("connections") == 0, "all are gone")


def test_backends_die_meanwhile(town, workers):
    """GETs are saved by another try, whatever generation they are in."""
    there = town(workers=workers, pool={"health": CHECKS_SOON})
    there.wait_health()
    with there.load() as load:
        for n in range(4):
            victim = there.recorders[n % 3]
            load.wait(50)
            victim.kill()
            there.lb.reload()
            there.lb.wait_health(victim, "down")
            there.lb.reload()
            load.wait(50)
            assert there.lb.backend(victim)["health"] == "down"
            victim.start()
            there.lb.wait_health(victim, "up")
            there.wait_served_by(victim)
    there.report(f"backends die while it is reloaded, {workers} workers", load)
    assert load.failures() == []
    there.wait_quiet()


# ---- workers die -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_workers_die_while_it_is_reloaded(town, method):
    """30 kill -9 of any process that is there: it costs the connections of the killed, and nothing else."""
    there = town(workers=4, how={"do": "delay", "delay": 0.01}, env=NO_LEAK_CHECK)
    lb, clients, kills, rng = there.lb, 12, [], random.Random(1)
    with there.load(clients=clients, methods=(method,)) as load:
        with again_and_again(lb.hup, 0.05):  # some fail, because a new worker was killed before it was ready
            for _ in range(30):
                load.wait(20)
                kills.append(time.monotonic())
                with suppress(ProcessLookupError):  # it has just finished by itself
                    os.kill(rng.choice(children_of(lb.pid)), signal.SIGKILL)
        lb.wait_workers()
        settled = time.monotonic()
        load.wait(100)
    there.report(f"30 workers die while it is reloaded, {method}", load)
    assert load.failures(since=settled) == []
    for sent in load.failures():
        assert isinstance(sent.outcome, (Truncated, ConnectionError)), sent
        assert any(-0.1 < kill - sent.began < sent.seconds for kill in kills), f"none was killed meanwhile: {sent}"
    assert len(load.failures()) <= clients * len(kills)
    assert there.doubled("POST") == []
    lb.reload()
    lb.wait_old_gone()
    there.wait_quiet()
    assert at_once(20, lambda i: get(lb.port, f"/x-{i}").status) == [200] * 20


# ---- very often ------------------------------------------------------------------------------------------------------


def segment_kib(lb):
    return lb.segment.stat().st_blocks // 2


def test_nothing_is_left_behind(tmp_path, lifetimes, balancer):
    """Neither descriptors nor memory nor processes nor places in the segment, with pools, backends, listeners and
    numbers of workers that come and go."""
    there = [lifetimes.enter_context(Recorder(tmp_path)) for _ in range(2)]
    lb = balancer(there[0], env=MEASURABLE, config={"segment": {"backends": 12}})
    port, unix = free_port(), tmp_path / "s"

    def variants(n):
        return [{"pools": web(there, health=CHECKS_SOON), "workers": 1, "routes": None,
                 "listen": [f"127.0.0.1:{lb.port}", f"127.0.0.1:{port}"]},
                {"pools": {**web(there[1]), f"api{n}": {"backends": [{"address": there[0], "name": f"b{n}"}],
                                                        "health": "off"}},
                 "workers": 2, "routes": [{"path": "/api", "pool": f"api{n}"}, {"pool": "web"}],
                 "listen": [f"127.0.0.1:{lb.port}", f"unix:{unix}"]},
                {"pools": web(there[0]), "workers": 1, "routes": None, "listen": f"127.0.0.1:{lb.port}"}]

    def figures():
        """At a time when only the smallest variant is there."""
        lb.reload(**variants(0)[2])
        lb.wait_old_gone()
        eventually(lambda: len(children_of(lb.pid)) == 1, "the other processes are reaped")
        return open_files(lb.pid), memory_kib(lb.pid), segment_kib(lb), len(os.listdir(f"/proc/{lb.pid}/task"))

    def reload_often(count):
        for n in range(count):
            lb.reload(**variants(n)[n % 3])
            if n % 10 == 0:
                assert get(lb.port, "/x").status == 200
    reload_often(WARM_UP)
    files, memory, segment, threads = figures()
    reload_often(IDLE_RELOADS)
    files_now, memory_now, segment_now, threads_now = figures()
    print(f"{IDLE_RELOADS} reloads: {memory} KiB -> {memory_now} KiB, {files_now} files, segment {segment_now} KiB")
    assert (files_now, threads_now) == (files, threads)
    assert segment_now - segment < SEGMENT_KIB
    assert memory_now - memory < MEMORY_KIB


def test_refused_files_leave_nothing_behind(balancer, backend):
    taken = backend()
    lb = balancer(backend(), env=MEASURABLE)
    wrong = [{"pools": {**web("127.0.0.1:9"), "more": {"backends": ["127.0.0.1:9"]}},
              "listen": [f"127.0.0.1:{lb.port}", f"127.0.0.1:{free_port()}", taken.address], "nonsense": None},
             {"nonsense": 1}]

    def refuse(n):
        for i in range(n):
            lb.reload_in_vain(**wrong[i % 2])
    refuse(WARM_UP)
    files, memory, segment = open_files(lb.pid), memory_kib(lb.pid), segment_kib(lb)
    refuse(IDLE_RELOADS)
    assert open_files(lb.pid) == files and segment_kib(lb) - segment < SEGMENT_KIB
    assert memory_kib(lb.pid) - memory < MEMORY_KIB
    assert children_of(lb.pid) == lb.worker_pids() and get(lb.port).status == 200


def test_generations_that_are_cut_leave_nothing_behind(balancer, backend):
    """Each with a request that never ends. It has its time all the same, so there are fewer reloads here."""
    there = backend(lambda c, r: (c.hang(), c.close()))
    lb = balancer(there, env=MEASURABLE)
    clients = []

    def cut(n):
        for _ in range(n):
            clients.append(Client(lb.port))
            clients[-1].start("GET", "/")
            there.wait_requests(len(clients))
            lb.reload()
        for client in clients[:-2]:
            client.close()
        eventually(lambda: len(children_of(lb.pid)) == 3, "two old generations and the new one")
    cut(WARM_UP // 2)
    files, memory, segment = open_files(lb.pid), memory_kib(lb.pid), segment_kib(lb)
    cut(IDLE_RELOADS // 5)
    assert open_files(lb.pid) == files and segment_kib(lb) - segment < SEGMENT_KIB
    assert memory_kib(lb.pid) - memory < MEMORY_KIB
    there.released.set()
    lb.wait_old_gone()
    lb.wait_idle()
