"""kill -9: of a worker it costs only what was in that worker; of the master, nothing stays behind (design.md 2)."""
import os
import signal
import time
from collections import Counter

import pytest
from harness import Client, Load, at_once, eventually, get, hang, is_running, reply, run


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def restarts(lb):
    return sum(row["restarts"] for row in lb.worker_rows())


@pytest.mark.parametrize("workers", [1, 4])
def test_a_killed_worker_costs_only_its_own_requests(balancer, demos, workers):
    lb = balancer(demos(3), workers=workers)
    with Load(lb.port, clients=16) as load:
        load.wait(200)
        assert load.failures() == []
        victim = max(lb.worker_rows(), key=lambda row: row["connections"])
        kill(victim["pid"])
        now = lb.wait_workers(without=[victim["pid"]])
        load.wait(200)
    per_client = Counter(number for number, _ in load.failures())
    assert len(per_client) <= victim["connections"], "connections of other workers failed too"
    assert set(per_client.values()) <= {1}, "a client failed again after it had connected anew"
    assert not any(isinstance(outcome, int) for _, outcome in load.failures()), "a lost connection is no error page"
    assert len(set(now)) == workers
    assert restarts(lb) == 1
    lb.wait_idle()
    assert lb.vbctl("status")["state"] == "running"


def test_requests_in_flight_are_given_back(balancer, backend):
    there = backend(hang)
    lb = balancer(there, workers=2)
    clients = [Client(lb.port) for _ in range(10)]
    for client in clients:
        client.start("GET", "/")
    there.wait_requests(10)
    assert lb.backend(there)["in_flight"] == 10
    pids = lb.worker_pids()
    for pid in pids:
        kill(pid)
    lb.wait_workers(without=pids)
    assert all(client.is_closed() for client in clients)
    lb.wait_idle()
    there.released.set()
    there.answer = reply()
    assert get(lb.port).status == 200
    assert lb.backend(there)["in_flight"] == 0


def test_counters_go_on_after_a_crash(balancer, backend):
    lb = balancer(there := backend())
    for n in (10, 20):
        for _ in range(10):
            get(lb.port)
        lb.wait_idle()
        assert lb.vbctl("status")["requests"] == n
        assert lb.backend(there)["requests"] == n
        pid, = lb.worker_pids()
        kill(pid)
        lb.wait_workers(without=[pid])


def test_killed_twice_in_a_row(balancer, demos):
    lb = balancer(demos(1), workers=2)
    victims = []
    for _ in range(2):
        victims.append(lb.worker_rows()[0]["pid"])
        kill(victims[-1])
        lb.wait_workers(without=victims)
    assert restarts(lb) == 2
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    lb.wait_log(str(victims[0]))
    lb.wait_log(str(victims[1]))


def test_all_workers_killed_at_once(balancer, demos):
    """Connections made while nobody serves wait in the sockets that the master keeps; they are not refused."""
    lb = balancer(demos(2), workers=4)
    pids = lb.worker_pids()
    for pid in pids:
        kill(pid)
    assert [response.status for response in at_once(10, lambda _: get(lb.port))] == [200] * 10
    lb.wait_workers(without=pids)
    lb.wait_idle()


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_worker_that_crashes_is_replaced(balancer, demos, how):
    options = os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0:handle_abort=0:handle_sigbus=0"  # it is no finding
    lb = balancer(demos(1), workers=2, env={"ASAN_OPTIONS": options})
    pid = lb.worker_pids()[0]
    os.kill(pid, how)
    lb.wait_workers(without=[pid])
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_a_killed_master_leaves_no_workers_behind(balancer, demos, workers):
    backends = demos(1)
    lb = balancer(backends, workers=workers, config={"shutdown": {"grace": "1s"}})
    pids = lb.worker_pids()
    lb.unclean = True
    kill(lb.pid)
    lb.process.wait()
    eventually(lambda: not any(is_running(pid) for pid in pids), "the workers have noticed and stopped")
    again = balancer(backends, workers=workers, name=lb.name, port=lb.port)
    assert [get(again.port).status for _ in range(10)] == [200] * 10


def test_a_killed_master_does_not_cut_requests_in_flight(balancer, backend):
    """Its workers finish what they have, within the grace."""
    there = backend(lambda c, r: (c.backend.released.wait(10), c.send(reply())))
    lb = balancer(there)
    pids = lb.worker_pids()
    lb.unclean = True
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        kill(lb.pid)
        lb.process.wait()
        there.released.set()
        assert client.response().status == 200
    eventually(lambda: not any(is_running(pid) for pid in pids), "the worker has stopped")


def test_vbctl_knows_that_the_master_is_dead(balancer, backend):
    lb = balancer(backend())
    lb.unclean = True
    kill(lb.pid)
    lb.process.wait()
    result = run("vbctl", "--name", lb.name, "status")
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1


def test_a_worker_that_cannot_live_does_not_spin(balancer, backend):
    """Killed again and again it is respawned, but with growing pauses: no storm of processes."""
    lb = balancer(backend())
    killed, end = 0, time.monotonic() + 3
    while time.monotonic() < end:
        for row in lb.worker_rows():
            if row["pid"] and is_running(row["pid"]):
                kill(row["pid"])
                killed += 1
    lb.wait_workers()
    assert killed < 15, f"{killed} processes in 3 s"
    assert get(lb.port).status == 200


def test_a_killed_worker_leaves_no_response_that_looks_complete(balancer, backend):
    """Without a length only the end of the connection completes it, and that must not come from a dead worker."""
    there = backend(lambda c, r: (c.send(b"HTTP/1.0 200 OK\r\n\r\nhello"), c.hang()))
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.head().status == 200
        assert client.exactly(5) == b"hello"
        os.kill(lb.worker_pids()[0], signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            client.rest()
    there.released.set()
    lb.wait_workers()


def test_a_response_without_a_length_ends_cleanly(balancer, backend):
    there = backend(lambda c, r: (c.send(b"HTTP/1.0 200 OK\r\n\r\nhello"), c.close()))
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.head().status == 200
        assert client.rest() == b"hello"
