"""How long kept connections to a backend are used: not when it may be closing them."""
import os
import signal
import time

import pytest
from harness import Client, eventually, get, post, reply


def test_what_a_backend_says_is_obeyed(balancer, backend):
    there = backend(reply(headers=[("Keep-Alive", "timeout=1, max=500")]))
    lb = balancer(there)
    with Client(lb.port) as client:
        for _ in range(5):
            assert client.get().status == 200
        assert len(there.connections) == 1
        assert lb.backend(there)["announced_idle_ms"] == 1000
        time.sleep(0.8)  # more than three quarters of what it said, less than all of it
        assert client.get().status == 200
        assert len(there.connections) == 2, "a connection was used that may have been closed just now"


def idle_closer(after):
    """A backend that closes a connection when nothing has come for so long, and does not say so."""
    def answer(connection, request):
        connection.send(reply())
        connection.socket.settimeout(after)
        try:
            connection._fill()
        except TimeoutError:
            connection.close()
        connection.socket.settimeout(None)
    return answer


@pytest.mark.parametrize("workers", [1, 4])
def test_what_a_backend_does_is_learned(balancer, backend, workers):
    there = backend(idle_closer(0.6))
    lb = balancer(there, workers=workers)

    def learned():
        get(lb.port)
        seen = len([c for c in there.connections if not c.is_open])
        eventually(lambda: len([c for c in there.connections if not c.is_open]) > seen, "it closes an idle connection")
        return lb.backend(there)["learned_idle_ms"]
    ms = eventually(learned, "its idle time-out is learned", timeout=30)
    assert 550 <= ms <= 700
    row = lb.backend(there)
    assert row["errors"] == 0 and row["retries"] == 0
    if workers == 1:
        with Client(lb.port) as client:
            client.get()
            before = len(there.connections)
            time.sleep(0.55)  # shorter than its time-out, longer than three quarters of it
            assert client.get().status == 200
            assert len(there.connections) == before + 1


def test_a_restart_teaches_nothing(balancer, backend):
    """All its connections are closed at one time, whatever their age."""
    there = backend()
    lb = balancer(there)
    clients = [Client(lb.port) for _ in range(8)]
    for _ in range(2):
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [client.response().status for client in clients] == [200] * 8
    time.sleep(0.3)
    there.drop_connections()
    eventually(lambda: not any(c.is_open for c in there.connections), "all are closed")
    assert get(lb.port).status == 200
    assert lb.backend(there)["learned_idle_ms"] is None
    for client in clients:
        client.close()


def test_the_oldest_connection_leaves_when_there_are_too_many(balancer, backend):
    """The one that waits longest is the one that the backend will close first."""
    there = backend(lambda c, r: (there.released.wait(10), c.send(reply())) if r.target == "/slow" else c.send(reply()))
    lb = balancer(there, pool={"keepalive": {"idle": 2}})
    clients = [Client(lb.port) for _ in range(4)]
    for client in clients:
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    there.wait_requests(4)
    there.released.set()
    assert [client.response().status for client in clients] == [200] * 4
    eventually(lambda: len([c for c in there.connections if c.is_open]) == 2, "two are kept")
    assert get(lb.port).status == 200
    assert len(there.connections) == 4
    for client in clients:
        client.close()


def test_a_connection_that_is_used_again_is_idle_no_more(balancer, backend):
    """Also while nothing but a head has gone over it."""
    there = backend()
    lb = balancer(there, pool={"keepalive": {"timeout": "300ms"}})
    assert get(lb.port).status == 200
    with Client(lb.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        time.sleep(1)
        client.send(b"hi")
        assert client.response().status == 200
    assert len(there.connections) == 1 and lb.backend(there)["errors"] == 0


def test_a_post_goes_over_no_connection_that_is_closed_already(balancer, backend):
    """It could not be sent again. The worker is stopped while the backend closes, so that it has not noticed."""
    there = backend()
    lb = balancer(there)
    assert get(lb.port).status == 200
    worker, = lb.worker_pids()
    with Client(lb.port) as client:
        os.kill(worker, signal.SIGSTOP)
        there.drop_connections()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        os.kill(worker, signal.SIGCONT)
        assert client.response().status == 200
    assert [r.method for r in there.requests].count("POST") == 1


def test_a_post_that_meets_the_close_is_not_sent_twice(balancer, backend):
    """Some of them do meet it: then nobody knows whether the backend has seen them, and they fail."""
    there = backend(idle_closer(0.02))
    lb = balancer(there)
    statuses = []
    for i in range(100):
        statuses.append(post(lb.port, f"/{i}", b"x").status)
        time.sleep(0.001 * (i % 30))
    assert set(statuses) <= {200, 502}
    assert len({r.target for r in there.requests}) == len(there.requests) >= statuses.count(200) >= 50
    assert lb.backend(there)["ejections"] == 0
