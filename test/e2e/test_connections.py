"""Connections on both sides: kept, reused, pipelined, closed when due (RFC 9112 9)."""
import pytest
from wire import Diag
from harness import Client, at_once, close, echo, eventually, get, hang, open_files, post, reply


def open_connections(backend):
    return sum(connection.is_open for connection in backend.connections)


def test_backend_connections_are_reused(balancer, backend, workers):
    there = backend()
    lb = balancer(there, workers=workers)
    for _ in range(50):
        assert get(lb.port).status == 200
    assert len(there.connections) <= workers
    with Client(lb.port) as client:
        for _ in range(50):
            assert client.get().status == 200
    assert len(there.connections) <= workers


def test_idle_backend_connections_are_bounded(balancer, backend):
    there = backend()
    lb = balancer(there, pool={"keepalive": {"idle": 2}})
    assert [response.status for response in at_once(10, lambda _: get(lb.port))] == [200] * 10
    eventually(lambda: open_connections(there) <= 2, "at most 2 idle connections are kept")


def test_idle_backend_connections_end_in_time(balancer, backend):
    there = backend()
    lb = balancer(there, pool={"keepalive": {"timeout": "200ms"}})
    assert get(lb.port).status == 200
    eventually(lambda: open_connections(there) == 0, "the idle connection is closed")


def test_keepalive_can_be_off(balancer, backend):
    there = backend()
    lb = balancer(there, pool={"keepalive": {"idle": 0}})
    assert [get(lb.port).status for _ in range(5)] == [200] * 5
    assert len(there.connections) == 5


def test_a_kept_connection_that_the_backend_closed_is_no_error(balancer, backend):
    """It closes after each response without having said so."""
    def answer(connection, request):
        connection.send(reply())
        connection.close()
    lb = balancer(backend(answer))
    with Client(lb.port) as client:
        assert [client.get().status for _ in range(50)] == [200] * 50


def only_on_fresh_connections(connection, request):
    """Like a server that closes an idle connection at the moment the next request arrives on it."""
    if connection.received.count(b"HTTP/1.1\r\n") > 1:
        connection.close()
    connection.send(reply("" if request.method == "HEAD" else "ok"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_a_kept_connection_that_closes_as_it_is_used_is_no_error(balancer, backend, method):
    """RFC 9110 9.2.2: an idempotent request is sent again, on a fresh connection."""
    there = backend(only_on_fresh_connections)
    lb = balancer(there)
    with Client(lb.port) as client:
        assert [client.request(method, "/").status for _ in range(10)] == [200] * 10
    lb.wait_idle()
    row = lb.backend(there)
    assert row["retries"] >= 9 and row["errors"] == 0


@pytest.mark.parametrize("method, body", [("POST", b"100"), ("POST", b""), ("POST", None), ("PATCH", b""),
                                          ("BUY", None)])
def test_what_is_not_idempotent_is_never_sent_twice(balancer, backend, method, body):
    there = backend(only_on_fresh_connections)
    lb = balancer(there)
    with Client(lb.port) as client:
        assert client.get("/warm-up").status == 200
        assert client.request(method, "/pay", body=body).status == 502
    assert [request.target for request in there.requests] == ["/warm-up", "/pay"]


def test_a_get_is_not_sent_again_for_ever(balancer, backend):
    there = backend(close)
    lb = balancer(there)
    assert get(lb.port).status == 502
    assert len(there.requests) <= 2


@pytest.mark.parametrize("request_headers, sent", [
    ([("Connection", "close")], reply()),
    ([], reply(headers=[("Connection", "close")])),
])
def test_close_on_one_side_is_not_passed_to_the_other(balancer, backend, request_headers, sent):
    """Connection is hop-by-hop: the client's wish to close is not the backend's, nor the other way round."""
    there = backend(sent)
    lb = balancer(there)
    with Client(lb.port) as client:
        first = client.get("/", request_headers)
        assert first.status == 200 and first.closes == bool(request_headers)
        if request_headers:
            assert client.is_closed()
        else:
            assert client.get().status == 200
    if request_headers:
        assert get(lb.port).status == 200
        assert len(there.connections) == 1


def test_pipelined_requests_are_answered_in_order(balancer, backend, workers):
    lb = balancer([backend(lambda c, r: c.send(reply(r.target))) for _ in range(3)], workers=workers)
    with Client(lb.port) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(50)))
        assert [client.response().text for _ in range(50)] == [f"/{i}" for i in range(50)]


def test_pipelined_requests_with_bodies(balancer, backend):
    lb = balancer(backend(echo))
    with Client(lb.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nonePOST / HTTP/1.1\r\nHost: x\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
                    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                    b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [client.response().body for _ in range(3)] == [b"one", b"two", b""]
        assert client.is_closed()


def test_the_number_of_requests_on_a_connection_is_limited(balancer, backend):
    lb = balancer(backend(), config={"limits": {"requests_per_connection": 3}})
    with Client(lb.port) as client:
        assert [client.get().closes for _ in range(3)] == [False, False, True]
        assert client.is_closed()


def test_an_idle_client_connection_ends_in_time_and_silently(balancer, backend):
    """No 408 behind the last response: a client could take it for the answer to its next request."""
    lb = balancer(backend(), config={"timeouts": {"keepalive": "200ms"}})
    with Client(lb.port) as client:
        assert client.get().status == 200
        assert client.is_closed()


def test_a_client_that_half_closes_still_gets_its_answer(balancer, backend):
    there = backend(lambda c, r: (c.backend.released.wait(10), c.send(reply("late"))))
    lb = balancer(there)
    with Client(lb.port) as client:
        client.start("POST", "/", body=b"x")
        client.half_close()
        there.wait_requests(1)
        there.released.set()
        assert client.response().text == "late"
        assert client.is_closed()


def test_a_client_that_goes_away_frees_the_backend(balancer, backend):
    there = backend(hang)
    lb = balancer(there)
    client = Client(lb.port)
    client.start("GET", "/")
    there.wait_requests(1)
    client.reset()
    eventually(lambda: open_connections(there) == 0, "the backend's connection is closed")
    lb.wait_idle()
    assert lb.backend(there)["errors"] == 0, "it was not the backend's fault"


def test_no_descriptor_is_lost(balancer, backend):
    there = backend(lambda c, r: c.reset() if r.target == "/reset" else c.send(reply()))
    lb = balancer(there, pool={"keepalive": {"timeout": "100ms"}})
    worker, = lb.worker_pids()
    before = open_files(worker)
    for target in ["/", "/reset"] * 50:
        get(lb.port, target)
    post(lb.port, "/", b"x" * 100000)
    eventually(lambda: open_files(worker) <= before, f"as many descriptors as in the beginning, {before}")


def test_a_pipelined_request_waits_for_its_own_response(balancer, backend):
    """On the connection whose last response's head came in two pieces: nothing of that one is waited for any more."""
    def in_pieces(connection, request):
        if request.target == "/hangs":
            hang(connection, request)
        answer = reply("one")
        with Diag() as diag:
            diag.send_apart(connection.socket, answer[:20], 20)
        connection.send(answer[20:])
    timeouts = {"response": "500ms", "idle": "60s"}
    there = backend(in_pieces)
    lb = balancer(there, pool={"timeouts": timeouts})
    with Client(lb.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /hangs HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [client.response().status for _ in range(2)] == [200, 504]
    assert len(there.connections) == 1, "it was not the same connection: that shows nothing"
