"""Limits of a pool: requests in flight, and requests that wait for a connection, over all workers."""
import os
import signal
import socket

import pytest
from harness import Client, at_once, eventually, free_port, get, reply


def hold(connection, request):
    connection.backend.released.wait(20)
    connection.send(reply())


@pytest.mark.parametrize("workers", [1, 4])
def test_no_more_requests_than_allowed(balancer, backend, workers):
    there = [backend(hold), backend(hold)]
    lb = balancer(there, workers=workers, pool={"circuit_breaker": {"max_requests": 10}})
    clients = [Client(lb.port) for _ in range(30)]
    at_once(30, lambda i: clients[i].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    eventually(lambda: lb.total("overloaded") == 20, "20 are refused")
    eventually(lambda: sum(len(b.requests) for b in there) == 10, "10 have come")
    assert sum(lb.backend(b)["in_flight"] for b in there) == 10
    for b in there:
        b.released.set()
    answers = [client.response() for client in clients]
    assert sorted(r.status for r in answers) == [200] * 10 + [503] * 20
    assert all(r.field("Retry-After") and "Too many requests" in r.text for r in answers if r.status == 503)
    for client in clients:
        client.close()
    lb.wait_idle()
    assert at_once(10, lambda i: get(lb.port).status) == [200] * 10


def test_a_refused_request_leaves_its_connection_alone(balancer, backend):
    there = backend(hold)
    lb = balancer(there, pool={"circuit_breaker": {"max_requests": 1}})
    with Client(lb.port) as first, Client(lb.port) as second:
        first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        there.wait_requests(1)
        assert [second.get().status for _ in range(3)] == [503] * 3
        there.released.set()
        assert first.response().status == 200
        assert second.get().status == 200


@pytest.mark.parametrize("workers", [1, 4])
def test_places_of_a_dead_worker_come_back(balancer, backend, workers):
    there = backend(hold)
    lb = balancer(there, workers=workers, pool={"circuit_breaker": {"max_requests": 8}})
    clients = [Client(lb.port) for _ in range(8)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    there.wait_requests(8)
    assert get(lb.port).status == 503
    pids = lb.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=pids)
    lb.wait_idle()
    there.released.set()
    assert at_once(8, lambda i: get(lb.port).status) == [200] * 8
    for client in clients:
        client.close()


@pytest.mark.parametrize("workers", [1, 4])
def test_no_more_wait_for_a_connection_than_allowed(balancer, workers):
    """A backend whose accept queue is full takes no connection and refuses none."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        lb = balancer("127.0.0.1:%d" % listener.getsockname()[1], workers=workers,
                      pool={"circuit_breaker": {"max_pending": 5}, "timeouts": {"connect": "2s"}, "retry": "off"})
        clients = [Client(lb.port) for _ in range(12)]
        at_once(12, lambda i: clients[i].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        eventually(lambda: lb.total("overloaded") == 7, "7 are refused")
        assert sorted(client.response().status for client in clients) == [503] * 7 + [504] * 5
        for client in clients:
            client.close()
        lb.wait_idle()
        assert get(lb.port).status == 504, "the places are free again"
        for filler in fillers:
            filler.close()


def test_off(balancer, backend):
    lb = balancer(backend(), pool={"circuit_breaker": "off"})
    assert at_once(20, lambda i: get(lb.port).status) == [200] * 20
