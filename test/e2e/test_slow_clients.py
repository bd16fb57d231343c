"""Thousands that send a byte now and then, and dozens that read as slowly: neither time nor memory is theirs."""
import resource
import selectors
import socket
import statistics
import threading
import time

import pytest
from harness import MEASURABLE, SANITIZED, TIMEOUT, Client, eventually, get, memory_kib


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def all_gone(lb):
    eventually(lambda: lb.total("connections") == 0, "no client is left")


# ---- many slow ones --------------------------------------------------------------------------------------------------


@pytest.fixture
def many_files():
    """Descriptors for thousands of sockets, here and in what is started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 9000:
        pytest.skip(f"only {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (9000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Slow:
    """Many connections, each with a head that never ends, a byte at a time."""

    def __init__(self, port, n):
        self.sockets = []
        for i in range(n):
            sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
            sock.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-%d: " % i)
            sock.setblocking(False)
            self.sockets.append(sock)
        self.sent, self._stopped = 0, threading.Event()
        self._thread = threading.Thread(target=self._trickle, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def _trickle(self):
        alive = list(self.sockets)
        while alive and not self._stopped.wait(0.3):
            for sock in list(alive):
                try:
                    self.sent += sock.send(b"a")
                except OSError:
                    alive.remove(sock)

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join(TIMEOUT)
        for sock in self.sockets:
            sock.close()


def test_two_thousand_slow_heads(many_files, balancer, backend, workers):
    """Slowloris. Who is honest is served as fast as ever, and the slow ones are not for ever."""
    lb = balancer(backend(), workers=workers, config={"timeouts": {"header": "5s"}}, env=MEASURABLE)
    memory = sum(map(memory_kib, lb.worker_pids()))
    with Slow(lb.port, 2000) as slow:
        eventually(lambda: lb.total("connections") >= 2000 and slow.sent >= 2000, "2,000 clients trickle")
        times = []
        for i in range(100):
            began = time.monotonic()
            assert get(lb.port).status == 200
            times.append(time.monotonic() - began)
        assert lb.total("connections") >= 2000, "they are still there"
        assert statistics.median(times) < 0.1 and max(times) < 1.5, "honest clients wait"
        assert sum(map(memory_kib, lb.worker_pids())) - memory < 2000 * (16 if SANITIZED else 4), "KiB for each"
        eventually(lambda: lb.total("connections") == 0, "the slow ones are dropped")
        told = sum(b" 408 " in sock.recv(1000) for sock in slow.sockets[::100])
        assert told == 20


def test_slow_readers_take_no_memory(many_files, balancer, backend, workers):
    """50 clients that read 100 MB each, a little now and then: the rest waits at the backend, not in a worker."""
    size, block, n = 100_000_000, bytes(1 << 20), 50

    def big(connection, request):
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(block) + 1):
            connection.send(block[:min(len(block), size + 100 - connection.sent)])
    there = backend(big, record=False)
    lb = balancer(there, workers=workers, env=MEASURABLE)
    get(lb.port, "/")
    pids = lb.worker_pids()
    before = sum(map(memory_kib, pids))
    clients = [Client(lb.port, receive_buffer=8192) for _ in range(n)]
    selector = selectors.DefaultSelector()
    for client in clients:
        client.start("GET", "/")
        assert client.head().status == 200
        selector.register(client.socket, selectors.EVENT_READ, client)
    most, got, end = 0, 0, time.monotonic() + 4
    while time.monotonic() < end:
        for key, _ in selector.select(0.1):
            got += len(key.fileobj.recv(4096))
        most = max(most, sum(map(memory_kib, pids)) - before)
        time.sleep(0.005)
    assert got > n * 10_000, "they do read"
    assert sum(connection.sent for connection in there.connections) < size * (n + 1), "they are in the middle of it"
    assert most < n * (256 if SANITIZED else 160), "KiB for each"
    for client in clients:
        client.close()
    lb.wait_idle()
    all_gone(lb)
