"""Stopping: what has begun is finished, nothing new is begun, nothing is left behind (design.md 2, "Stop")."""
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Client, Load, Truncated, children_of, eventually, get, hang, is_refused, reply


def waits(connection, request):
    """Answers once it is released."""
    connection.backend.released.wait(60)
    connection.send(reply("finished"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_requests_in_flight_are_finished(balancer, backend, workers, how):
    there = backend(waits)
    lb = balancer(there, workers=workers)
    with ThreadPoolExecutor(8) as pool:
        requests = [pool.submit(get, lb.port) for _ in range(8)]
        there.wait_requests(8)
        lb.ask_to_stop(how)
        eventually(lambda: is_refused(lb.port), "new connections are refused")
        assert lb.process.poll() is None
        there.released.set()
        responses = [request.result() for request in requests]
    assert [response.text for response in responses] == ["finished"] * 8
    assert all(response.closes for response in responses)
    lb.stop()


def test_the_state_is_shown_while_it_stops(balancer, backend):
    there = backend(waits)
    lb = balancer(there, workers=2)
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.ask_to_stop()
        eventually(lambda: lb.vbctl("status")["state"] == "stopping", "vbctl says that it stops")
        assert lb.vbctl("status")["in_flight"] == 1
        there.released.set()
        assert client.response().text == "finished"


def test_idle_connections_are_closed(balancer, backend, workers):
    lb = balancer(backend(), workers=workers)
    clients = [Client(lb.port) for _ in range(10)]
    assert [client.get().status for client in clients] == [200] * 10
    silent = Client(lb.port)
    lb.stop()
    assert all(client.is_closed() for client in clients + [silent])


def test_a_body_on_its_way_is_finished(balancer, backend):
    there = backend()
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        eventually(lambda: b"hello" in there.received, "the first half has arrived")
        lb.ask_to_stop()
        eventually(lambda: is_refused(lb.port), "it stops")
        client.send(b"world")
        assert client.response().status == 200
        assert client.is_closed()
    assert there.requests[0].body == b"helloworld"


def test_the_grace_has_an_end(balancer, backend):
    there = backend(hang)
    lb = balancer(there, workers=2, config={"shutdown": {"grace": "300ms"}})
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        began = time.monotonic()
        lb.stop()
        assert 0.25 < time.monotonic() - began < 10
        with pytest.raises((Truncated, ConnectionError, AssertionError)):
            assert client.response().status >= 500


def test_a_second_signal_cuts(balancer, backend):
    there = backend(hang)
    lb = balancer(there, workers=2)  # the grace is 30 s
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.ask_to_stop()
        eventually(lambda: is_refused(lb.port), "it stops")
        eventually(lambda: len(children_of(lb.pid)) == 1, "the worker without a client has gone")  # not cut at its exit
        lb.ask_to_stop()
        lb.wait(10)
    assert not lb.segment.exists()
    assert lb.reports() == ""
    lb.unclean = True  # its exit status is not prescribed


def test_a_stop_under_load_loses_no_request(balancer, demos):
    """Each client gets answers until it is told to close; then it is refused. Nothing that was begun is cut."""
    lb = balancer(demos(2), workers=4)
    with Load(lb.port, clients=8, target="/work?ms=5") as load:
        load.wait(100)
        lb.stop()
    outcomes = [outcome for _, outcome in load.failures()]
    # A connection that the kernel had taken for us when the socket was closed is reset; no user space can prevent that.
    assert [o for o in outcomes if not isinstance(o, (ConnectionRefusedError, ConnectionResetError))] == []
    assert sum(isinstance(o, ConnectionResetError) for o in outcomes) <= 8, outcomes


def test_a_signal_to_the_whole_group_is_a_graceful_stop(balancer, backend):
    """As Ctrl-C in a terminal does: workers get it too, and must not die of it."""
    there = backend(waits)
    lb = balancer(there, workers=2)
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        for pid in lb.worker_pids():
            os.kill(pid, signal.SIGINT)
        lb.ask_to_stop(signal.SIGINT)
        eventually(lambda: is_refused(lb.port), "it stops")
        there.released.set()
        assert client.response().text == "finished"
    lb.stop()


def test_stopping_while_checks_run(balancer, backend):
    there = backend(hang)
    lb = balancer(there, pool={"health": {"path": "/health", "timeout": "30s"}})
    there.wait_requests(1)
    began = time.monotonic()
    lb.stop()
    assert time.monotonic() - began < 10


def test_stopping_right_after_the_start(balancer, backend):
    for _ in range(5):
        balancer(backend(), workers=4).stop()


# ---- as PID 1 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_pid_1(balancer, backend):
    """as_pid_1(answer) -> (balancer whose master is PID 1 of its namespace, its backend)"""
    if os.getuid() != 0 or subprocess.run(["unshare", "-fp", "--mount-proc", "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace can be made here")

    def do(answer=None):
        there = backend(answer)
        lb = balancer(there, workers=2, wrapper=["unshare", "-fp", "--mount-proc"])
        lb.pid, = children_of(lb.process.pid)  # as we see it
        lb._seen_workers = set(children_of(lb.pid))
        return lb, there
    return do


def test_as_pid_1_it_serves_and_stops(as_pid_1):
    lb, there = as_pid_1(waits)
    assert lb.vbctl("status")["pid"] == 1
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.ask_to_stop()
        eventually(lambda: is_refused(lb.port), "new connections are refused")
        there.released.set()
        assert client.response().text == "finished"
    lb.stop()


def test_as_pid_1_it_respawns_workers(as_pid_1):
    lb, _ = as_pid_1()
    victim = children_of(lb.pid)[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(children_of(lb.pid)) == 2 and victim not in children_of(lb.pid), "a new worker")
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_as_pid_1_it_reaps_orphans(as_pid_1):
    """Whoever loses its parent in a PID namespace becomes a child of PID 1, and a zombie if that one does not wait."""
    lb, _ = as_pid_1()
    workers = set(children_of(lb.pid))
    subprocess.run(["nsenter", "-t", str(lb.pid), "-p", "-m", "sh", "-c", "for i in 1 2 3; do (sleep 0.2 &) ; done"],
                   check=True, timeout=10)
    eventually(lambda: set(children_of(lb.pid)) <= workers, "no zombie is left")
    assert get(lb.port).status == 200
