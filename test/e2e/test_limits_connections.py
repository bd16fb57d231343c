"""How many connections there may be, in all and from each address: one truth for all workers (README, "limits")."""
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Client, at_once, eventually, exchange, free_port, get

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def all_gone(lb):
    eventually(lambda: lb.total("connections") == 0, "no client is left")


# ---- connections in all ----------------------------------------------------------------------------------------------


def serve(port, n, **options):
    """n clients with a connection each, and what a first request on it was answered."""
    clients = [Client(port, **options) for _ in range(n)]
    return clients, [client.get().status for client in clients]


def test_one_connection_too_many(balancer, backend, workers):
    there = backend()
    lb = balancer(there, workers=workers, config={"limits": {"connections": 3}})
    clients, statuses = serve(lb.port, 3)
    assert statuses == [200] * 3
    for n in (1, 2):
        with Client(lb.port) as surplus:
            response = surplus.get("/surplus")
            assert response.status == 503 and response.closes
            assert int(response.field("Retry-After")) >= 0
            assert surplus.is_closed()
        assert lb.total("connections_refused") == n
    assert [client.get().status for client in clients] == [200] * 3
    assert "/surplus" not in [request.target for request in there.requests]
    clients[1].close()
    eventually(lambda: lb.total("connections") == 2, "its place is free")
    again, statuses = serve(lb.port, 1)
    assert statuses == [200]
    for client in clients + again:
        client.close()
    all_gone(lb)


def test_the_answer_to_one_too_many_is_not_lost(balancer, backend):
    """It may have sent more than a head; and HEAD has no body."""
    lb = balancer(backend(), config={"limits": {"connections": 1}})
    with Client(lb.port) as first:
        assert first.get().status == 200
        for data in (POST + b"Content-Length: 300000\r\n\r\n" + b"x" * 300000,
                     b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3, b"GET / HTTP/1.0\r\n\r\n"):
            response = exchange(lb.port, data)
            assert response.status == 503 and response.closes, data[:30]


def test_one_too_many_that_says_nothing_is_closed(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"limits": {"connections": 1}})
    with Client(lb.port) as first:
        assert first.get().status == 200
        began = time.monotonic()
        with Client(lb.port) as silent:
            assert silent.rest() == b""
        assert time.monotonic() - began < 4, "a second or so"
        assert first.get().status == 200


def hold_at_once(port, n, source=lambda i: None):
    """n clients that connect at once and hold what they got; (clients, statuses)."""
    clients = [None] * n

    def one(i):
        clients[i] = Client(port, source=source(i))
        return clients[i].get().status
    return clients, at_once(n, one)


def test_the_limit_is_exact_over_all_workers(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"limits": {"connections": 10}})
    for _ in range(6):
        clients, statuses = hold_at_once(lb.port, 40)
        assert (statuses.count(200), statuses.count(503)) == (10, 30)
        for client in clients:
            client.close()
        all_gone(lb)


def test_places_come_back_however_a_connection_ends(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"limits": {"connections": 4, "connections_per_ip": 4},
                                                      "timeouts": {"keepalive": "200ms", "header": "200ms"}})

    def end(i):
        with Client(lb.port) as client:
            if i % 5 == 0:
                client.get()
            elif i % 5 == 1:
                client.send(b"nonsense\r\n\r\n")
            elif i % 5 == 2:
                client.send(b"GET / HTTP")
                client.reset()
                return
            elif i % 5 == 3:
                client.get("/", [("Connection", "close")])
            if i % 2:
                client.rest()
    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(end, range(20)))
        all_gone(lb)
    clients, statuses = serve(lb.port, 4)
    assert statuses == [200] * 4
    assert serve(lb.port, 1)[1] in ([503], [429])


# ---- connections of one address --------------------------------------------------------------------------------------


def test_one_connection_too_many_from_an_address(balancer, backend, workers):
    there = backend()
    lb = balancer(there, workers=workers, config={"limits": {"connections_per_ip": 2}})
    one, statuses = serve(lb.port, 2, source="127.0.0.1")
    two, more = serve(lb.port, 2, source="127.0.0.2")
    assert statuses + more == [200] * 4
    for source in ("127.0.0.1", "127.0.0.2"):
        with Client(lb.port, source=source) as surplus:
            response = surplus.get("/surplus")
            assert response.status == 429 and response.closes
            assert int(response.field("Retry-After")) >= 0
            assert surplus.is_closed()
    assert lb.total("connections_refused") == 2
    assert get(lb.port, source="127.0.0.3").status == 200
    one[0].close()
    eventually(lambda: lb.total("connections") == 3, "its place is free")
    assert get(lb.port, source="127.0.0.2").status == 429
    again, statuses = serve(lb.port, 1, source="127.0.0.1")
    assert statuses == [200]
    assert "/surplus" not in [request.target for request in there.requests]
    for client in one + two + again:
        client.close()
    all_gone(lb)


def test_the_limit_of_an_address_is_exact_over_all_workers(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"limits": {"connections_per_ip": 7}})
    for _ in range(6):
        clients, statuses = hold_at_once(lb.port, 60, lambda i: f"127.0.0.{i % 3 + 1}")
        for j in range(3):
            assert (statuses[j::3].count(200), statuses[j::3].count(429)) == (7, 13)
        for client in clients:
            client.close()
        all_gone(lb)


def test_many_addresses(balancer, backend, workers):
    """One connection for each: they are not mistaken for one another, and all come back."""
    lb = balancer(backend(), workers=workers, config={"limits": {"connections_per_ip": 1}})
    for _ in range(2):
        clients = [Client(lb.port, source=f"127.{i % 7}.{i // 250}.{i % 250 + 1}") for i in range(1, 1500)]
        assert {client.get().status for client in clients} == {200}
        assert {get(lb.port, source=client.socket.getsockname()[0]).status for client in clients[::50]} == {429}
        for client in clients:
            client.close()
        all_gone(lb)


def test_both_limits_of_connections(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"limits": {"connections": 3, "connections_per_ip": 2}})
    one, _ = serve(lb.port, 2)
    assert get(lb.port).status == 429
    two, statuses = serve(lb.port, 1, source="127.0.0.2")
    assert statuses == [200]
    assert get(lb.port, source="127.0.0.2").status == 503
    for client in one + two:
        client.close()
    all_gone(lb)
    clients, statuses = serve(lb.port, 2)
    assert statuses == [200, 200], "those that were refused have taken no place"


@pytest.mark.parametrize("setting, status", [("connections", 503), ("connections_per_ip", 429)])
def test_a_killed_worker_gives_its_places_back(balancer, backend, workers, setting, status):
    lb = balancer(backend(), workers=workers, config={"limits": {setting: 20}})
    clients, statuses = serve(lb.port, 20)
    assert statuses == [200] * 20
    assert get(lb.port).status == status
    all_of_them = lambda: lb.total("connections") == 20  # noqa: E731 - the refused one is gone
    eventually(all_of_them, "20 connections")
    victim = max(lb.worker_rows(), key=lambda row: row["connections"])
    assert victim["connections"] > 0
    os.kill(victim["pid"], signal.SIGKILL)
    lb.wait_workers(without=[victim["pid"]])
    eventually(lambda: lb.total("connections") == 20 - victim["connections"], "what it held is given back")
    again, statuses = hold_at_once(lb.port, victim["connections"] + 10)
    assert (statuses.count(200), statuses.count(status)) == (victim["connections"], 10)
    for client in clients + again:
        client.close()
    all_gone(lb)
    assert serve(lb.port, 20)[1] == [200] * 20


def test_limits_of_connections_and_a_stop(balancer, backend):
    lb = balancer(backend(), workers=4, config={"limits": {"connections": 5}})
    clients, _ = serve(lb.port, 5)
    surplus = [Client(lb.port) for _ in range(10)]
    lb.stop()
    assert all(client.is_closed() for client in clients + surplus)


def test_a_head_request_over_the_limit_gets_no_content(balancer, backend):
    lb = balancer(backend(), config={"limits": {"connections": 1}})
    with Client(lb.port) as first:
        assert first.get().status == 200
        with Client(lb.port) as client:
            client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.rest().endswith(b"\r\n\r\n")


def test_connections_that_wait_for_a_proxy_header_are_counted(balancer, backend):
    port = free_port()
    lb = balancer(backend(), port=port, config={"listen": [{"address": f"127.0.0.1:{port}", "proxy_protocol": True}],
                                                "limits": {"connections": 3}})
    silent = [Client(lb.port) for _ in range(3)]
    eventually(lambda: lb.total("connections") == 3, "they are there")
    with Client(lb.port) as client:
        client.send(b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.response().status == 503
    silent[0].send(b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert silent[0].response().status == 200
    for client in silent:
        client.close()
