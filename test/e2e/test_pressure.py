"""Peers that take too much, too slowly, or too often: bounded while it lasts, and over when they are gone."""
import os
import shutil
import signal
import threading
import time

import pytest
from harness import (MEASURABLE, SANITIZED, Client, Truncated, children_of, eventually, free_port, get, memory_kib,
                     open_files, reply)


def test_too_few_descriptors(balancer, backend):
    """At the limit it serves those whom it has; when they leave, the next ones. Nobody is dropped, nothing ends."""
    if not shutil.which("prlimit"):
        pytest.skip("no prlimit")
    lb = balancer(backend(), wrapper=["prlimit", "--nofile=48:48"])
    pids = lb.worker_pids()
    clients = [Client(lb.port) for _ in range(100)]
    for client in clients:
        client.start("GET", "/")
    for client in clients:
        assert client.response().status in (200, 500, 502, 503)
        client.close()
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "all are gone")
    assert [get(lb.port).status for _ in range(20)] == [200] * 20
    assert lb.worker_pids() == pids


def test_nobody_reads_the_log(balancer, backend):
    """A full pipe behind standard error (a stopped terminal, a hanging logger) must not stop a worker."""
    reading, writing = os.pipe()
    lb = balancer([backend(), f"127.0.0.1:{free_port()}"], workers=2, stderr=writing,
                  pool={"retry": "off", "outlier": "off"})
    os.close(writing)

    def log_a_lot():
        with Client(lb.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
            assert [client.response().status for _ in range(500)].count(502) == 250
        return sum(row["log_dropped"] for row in lb.worker_rows()) > 0
    eventually(log_a_lot, "log lines are dropped, and counted")
    assert [get(lb.port).status for _ in range(10)].count(200) == 5
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reading, 65536), b"")], daemon=True)
    drain.start()
    lb.stop()
    drain.join(10)
    os.close(reading)


def test_pipelining_without_reading_is_bounded(balancer, backend):
    lb = balancer(there := backend(reply(b"x" * 100000), record=False), env=MEASURABLE)
    get(lb.port)
    pid, = lb.worker_pids()
    before = memory_kib(pid)
    with Client(lb.port, receive_buffer=4096) as client:
        client.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            while len(there.requests) < 100000:
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert memory_kib(pid) - before < 8192
    lb.wait_idle()


def test_a_client_that_never_reads_is_dropped(balancer, backend):
    there = backend(reply(b"x" * 50_000_000), record=False)
    lb = balancer(there, config={"timeouts": {"body": "300ms"}})
    with Client(lb.port, receive_buffer=4096) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.wait_idle()
        eventually(lambda: lb.vbctl("status")["connections"] == 0, "the client has been dropped")
        with pytest.raises((Truncated, ConnectionError)):
            client.response()
    assert get(lb.port).status == 200


def test_a_slow_reader_that_reads_is_not_dropped(balancer, backend):
    """The time is between bytes, never in total."""
    size = 20_000_000
    lb = balancer(backend(reply(b"x" * size), record=False), config={"timeouts": {"body": "1s"}})
    with Client(lb.port, receive_buffer=262144) as client:
        client.start("GET", "/")
        client.head()
        left, began = size - len(client._buffer), time.monotonic()
        while left > 0:
            data = client.socket.recv(100_000)
            assert data != b"", f"cut with {left} bytes left"
            left -= len(data)
            time.sleep(0.01)
        assert time.monotonic() - began > 1.5, "that was not slow enough to show anything"


def test_endless_interim_responses_are_not_followed_for_ever(balancer, backend):
    def answer(connection, request):
        while not connection.backend.released.is_set():
            connection.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
    there = backend(answer, record=False)
    lb = balancer(there, pool={"timeouts": {"response": "1s"}}, config={"timeouts": {"body": "1s"}})
    with Client(lb.port) as client:
        client.start("GET", "/")
        try:
            for _ in range(20000):
                last = client.head().status
                if last >= 200:
                    break
            assert last in (502, 504), "20,000 interim responses, and no end"
        except (Truncated, ConnectionError):
            pass
    there.released.set()
    lb.wait_idle()


def test_what_an_idle_backend_connection_says_is_no_response(balancer, backend):
    """Some servers send 408 before they close an idle connection."""
    there = backend(reply("fine"))
    lb = balancer(there)
    for n in range(1, 6):
        assert get(lb.port).text == "fine"
        assert len(there.connections) == n
        connection = there.connections[-1]
        connection.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        eventually(lambda: not connection.is_open, "the connection is given up")
    assert lb.backend(there)["errors"] == 0


def test_many_idle_connections_are_cheap(balancer, backend):
    lb = balancer(backend(), env=MEASURABLE)
    pid, = lb.worker_pids()
    get(lb.port)
    before, files = memory_kib(pid), open_files(pid)
    clients = [Client(lb.port) for _ in range(400)]
    for client in clients:
        assert client.get().status == 200
    assert lb.vbctl("status")["connections"] == 400
    assert memory_kib(pid) - before < 400 * (10 if SANITIZED else 4), "KiB for each idle connection"
    for client in clients:
        client.close()
    eventually(lambda: open_files(pid) <= files + 1, "the descriptors are given back")


def test_connections_that_come_and_go(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, env=MEASURABLE)

    def churn(n):
        for _ in range(n):
            Client(lb.port).close()
            Client(lb.port).reset()
    churn(1500 * workers)  # sanitizers take memory of their own for a while
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "none is left")
    before = [(memory_kib(pid), open_files(pid)) for pid in lb.worker_pids()]
    churn(1500)
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "none is left")
    for pid, (memory, files) in zip(lb.worker_pids(), before):
        assert memory_kib(pid) - memory < 1024 and open_files(pid) <= files


def test_many_slow_heads_do_not_keep_others_out(balancer, backend):
    """Slowloris: hundreds of connections with half a head each."""
    lb = balancer(backend(), config={"timeouts": {"header": "2s"}})
    slow = [Client(lb.port) for _ in range(300)]
    for client in slow:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ")
    assert [get(lb.port).status for _ in range(20)] == [200] * 20
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "the slow ones are dropped")
    assert slow[0].response().status == 408


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE])
def test_other_signals_do_not_end_it(balancer, backend, number):
    """SIGHUP and SIGUSR1 get their meaning later; until then they must not be the end of a running service."""
    lb = balancer(backend(), workers=2)
    for pid in [lb.pid, *children_of(lb.pid)]:
        os.kill(pid, number)
    assert [get(lb.port).status for _ in range(20)] == [200] * 20
    assert lb.process.poll() is None
    assert sum(row["restarts"] for row in lb.worker_rows()) == 0


def test_as_many_workers_as_there_can_be(balancer, backend):
    lb = balancer(backend(), workers=64)
    assert [get(lb.port).status for _ in range(100)] == [200] * 100


def test_hundreds_of_backends(balancer, backend):
    there = backend()
    rest = [f"127.0.{i // 200}.{i % 200 + 1}:{there.port}" for i in range(1, 200)]
    lb = balancer([there, *rest], workers=2, pool={"health": {"interval": "200ms", "fast_interval": "100ms"}})
    eventually(lambda: lb.vbctl("status")["backends"]["down"] == 199, "all but one are down")
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
