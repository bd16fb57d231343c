"""kill -9: of a worker it costs only what was in that worker; of the master, nothing stays behind (design.md 2)."""
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from contextlib import closing

import pytest
from harness import Balancer, Client, Load, at_once, children_of, eventually, get, hang, is_running, reply, run


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


# ---- the next master -------------------------------------------------------------------------------------------------

KILLING = r"worker \(pid (\d+)\) of the last master hangs and still listens: killing it"


def kill_master(lb):
    lb.unclean = True
    kill(lb.pid)
    lb.process.wait()


def wait_gone(*pids):
    eventually(lambda: not any(is_running(pid) for pid in pids), "they have ended")


def left_by(lb, again):
    """How many workers of the killed one `again` has found, as it says in the one line about them."""
    n, = re.findall(rf"the last master \(pid {lb.pid}\) was killed; (\d+) of its workers finish$", again.log(), re.M)
    return int(n)


def killed_by(lb):
    return [int(pid) for pid in re.findall(KILLING, lb.log())]


def slow_or_ok(connection, request):
    if request.target == "/slow":
        connection.backend.released.wait()
    connection.send(reply())


def begin_slow(lb, there):
    """A client with a request that ends when the backend is released, and the pid of its worker."""
    client = Client(lb.port)
    client.start("GET", "/slow")
    there.wait_requests(1)
    worker, = [row["pid"] for row in lb.worker_rows() if row["in_flight"] == 1]
    return client, worker


def start_in_vain(lb):
    """The same once more, which cannot run; the last sentence that it says."""
    result = run("vibebalancer", "-c", lb.file, "--name", lb.name, "--workers", lb.workers)
    assert result.returncode == 1, result
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_master_started_again_at_once_takes_over(balancer, demos, workers):
    backends = demos(2)
    lb = balancer(backends, workers=workers)
    for _ in range(20):
        with Load(lb.port) as load:
            load.wait(50)
            kill_master(lb)
            before, lb = lb, balancer(backends, workers=workers, name=lb.name, port=lb.port)
            ready = time.monotonic()
            load.wait(50)
        assert load.failures(since=ready) == []
        assert left_by(before, lb) <= workers and killed_by(lb) == []
        assert lb.vbctl("status")["workers"]["ready"] == workers
        result = run("vbctl", "--name", lb.name, "ready", f"web/{backends[0].address}")
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("workers", [1, 4])
def test_a_master_that_was_killed_while_its_workers_started(balancer, demos, lifetimes, tmp_path, workers):
    backends = demos(1)
    lb = balancer(backends, workers=workers)
    for _ in range(5):
        kill_master(lb)
        half = Balancer(tmp_path, {"web": {"backends": backends}}, workers=workers, name=lb.name, port=lb.port)
        lifetimes.push(half)
        pids = eventually(lambda: children_of(half.pid), "it has begun to start workers")
        kill_master(half)
        lb = balancer(backends, workers=workers, name=lb.name, port=lb.port)
        assert [get(lb.port).status for _ in range(10)] == [200] * 10
        wait_gone(*pids)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_worker_that_hangs_without_its_master_does_not_keep_the_port(balancer, demos, stopped, workers):
    backends = demos(1)
    lb = balancer(backends, workers=workers)
    hung = lb.worker_pids()[0]
    stopped(hung)
    kill_master(lb)
    again = balancer(backends, workers=workers, name=lb.name, port=lb.port)
    assert not is_running(hung)
    assert killed_by(again) == [hung]
    assert left_by(lb, again) >= 1
    assert [get(again.port).status for _ in range(10)] == [200] * 10


def test_only_the_one_that_hangs_is_killed(balancer, backend, stopped):
    there = backend(slow_or_ok)
    lb = balancer(there, workers=4)
    client, busy = begin_slow(lb, there)
    with client:
        hung, *_ = [pid for pid in lb.worker_pids() if pid != busy]
        stopped(hung)
        kill_master(lb)
        again = balancer(there, workers=4, name=lb.name, port=lb.port)
        assert killed_by(again) == [hung]
        there.released.set()
        assert client.response().status == 200
    wait_gone(busy)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_request_of_the_last_master_finishes_beside_the_next(balancer, backend, workers):
    there = backend(slow_or_ok)
    lb = balancer(there, workers=workers)
    client, busy = begin_slow(lb, there)
    with client:
        kill_master(lb)
        again = balancer(there, workers=workers, name=lb.name, port=lb.port)
        assert left_by(lb, again) >= 1
        assert [get(again.port).status for _ in range(10)] == [200] * 10
        assert is_running(busy) and killed_by(again) == []
        there.released.set()
        assert client.response().status == 200
    wait_gone(busy)


def test_a_port_that_another_program_has_taken_is_refused_at_once(balancer, backend):
    lb = balancer(backend())
    pids = lb.worker_pids()
    kill_master(lb)
    wait_gone(*pids)
    with socket.create_server(("127.0.0.1", lb.port)):
        began = time.monotonic()
        assert start_in_vain(lb).endswith(f"cannot listen on 127.0.0.1:{lb.port}: another process listens there")
        assert time.monotonic() - began < 2, "it has waited for workers that are not there"


def test_nobody_is_killed_for_a_port_that_another_program_has_taken(balancer, backend):
    there = backend(slow_or_ok)
    lb = balancer(there)
    client, busy = begin_slow(lb, there)

    def take_port():
        try:
            return socket.create_server(("127.0.0.1", lb.port))
        except OSError:
            return None
    with client:
        kill_master(lb)
        with closing(eventually(take_port, "the worker has stopped listening")):
            assert start_in_vain(lb).endswith(": another process listens there")
        assert is_running(busy)
        there.released.set()
        assert client.response().status == 200


def test_who_has_the_pid_of_a_worker_by_now_is_not_killed(balancer, demos, stopped, lifetimes):
    """What a segment says of pids is what was true once."""
    backends = demos(1)
    lb = balancer(backends)
    hung, = lb.worker_pids()
    other = subprocess.Popen(["sleep", "60"])
    lifetimes.callback(other.wait)
    lifetimes.callback(other.kill)
    stopped(hung)
    kill_master(lb)
    with open(lb.segment, "r+b") as file, mmap.mmap(file.fileno(), 0) as segment:
        at, = struct.unpack_from("Q", segment, 80)  # where the rows of workers are; their fourth word is the pid
        assert struct.unpack_from("i", segment, at + 12) == (hung,)
        struct.pack_into("i", segment, at + 12, other.pid)
    again = balancer(backends, name=lb.name, port=lb.port)
    assert killed_by(again) == [hung] and not is_running(hung)
    assert other.poll() is None


# ---- responses -------------------------------------------------------------------------------------------------------


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
