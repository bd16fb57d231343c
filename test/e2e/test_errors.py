"""When a backend fails: 502, 503, 504, each with a few words for the client and a line for the operator."""
import time

import pytest
from harness import Client, close, deaf_address, exchange, free_port, get, hang, post, reply, reset


def check_error(response, status):
    """Small, plain text, and it says what happened, but not where our backends are."""
    assert response.status == status
    assert response.field("Content-Type").startswith("text/plain")
    assert 10 < len(response.body) < 300 and all(line.isprintable() for line in response.text.splitlines())
    assert "127.0.0.1" not in response.text


FAILURES = {
    "reset": (reset, "reset"),
    "closed without a word": (close, "closed"),
    "garbage": (b"this is not HTTP\r\n\r\n", ""),
    "binary": (bytes(range(128, 256)) * 10, ""),
    "a head that is cut": (lambda c, r: (c.send(reply()[:20]), c.close()), "closed"),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    "a bad status": (b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", ""),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", ""),
    "length and chunked": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    "a field without name": (b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n", ""),
    "NUL in a value": (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", ""),
    "a folded line": (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", ""),
    "a head without end": (b"HTTP/1.1 200 OK\r\n" + b"X: 0123456789\r\n" * 5000, ""),
    "101 that nobody asked for": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ""),
}


@pytest.mark.parametrize("answer, word", FAILURES.values(), ids=FAILURES)
def test_502_when_the_backend_fails(balancer, backend, answer, word):
    there = backend(answer)
    lb = balancer(there)
    check_error(get(lb.port), 502)
    there.answer = reply("fine")
    assert get(lb.port).text == "fine"
    line, = lb.wait_log(there.address)
    assert word in line
    lb.wait_idle()
    row = lb.backend(there)
    assert (row["requests"], row["errors"]) == (2, 1)
    assert len(there.connections) == 2, "a broken connection is not used again"


def test_502_when_nobody_listens(balancer):
    lb = balancer(f"127.0.0.1:{free_port()}")
    check_error(get(lb.port), 502)
    check_error(post(lb.port, "/", b"x" * 100000), 502)
    assert all("refused" in line for line in lb.wait_log("backend web/127.0.0.1:", 2))


def test_a_failed_upload_leaves_the_client_in_step(balancer, backend):
    """The rest of its body is not its next request."""
    there = backend(lambda c, r: c.reset(), early=True)
    lb = balancer(there)
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", 1000000)])
        client.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        check_error(client.response(), 502)
        there.early, there.answer = False, reply()
        try:
            client.send(b"x" * (1000000 - 3500))
            assert client.is_closed() or client.get().status == 200
        except ConnectionError:
            pass
    assert "/smuggled" not in [request.target for request in there.requests]


def test_504_when_the_response_does_not_come(balancer, backend):
    there = backend(hang)
    lb = balancer(there, pool={"timeouts": {"response": "200ms"}})
    check_error(get(lb.port), 504)
    line, = lb.wait_log(there.address)
    assert "time" in line
    lb.wait_idle()


def test_504_when_the_backend_does_not_accept(balancer):
    with deaf_address() as address:
        lb = balancer(address, pool={"timeouts": {"connect": "200ms"}})
        check_error(get(lb.port), 504)
        line, = lb.wait_log(address)
        assert "connect" in line and "time" in line


def test_a_slow_response_is_not_cut_by_the_response_timeout(balancer, backend):
    """It is the time to the first byte, never a total: between bytes another clock runs."""
    def answer(connection, request):
        for byte in reply("slow"):
            connection.send(bytes([byte]))
            time.sleep(0.03)
    lb = balancer(backend(answer), pool={"timeouts": {"response": "1s", "idle": "1s"}})
    assert get(lb.port).text == "slow"


def test_the_next_backend_is_used_by_the_next_request(balancer, backend):
    """One bad backend of two: every second request fails, and says so."""
    good, bad = backend(), backend(reset)
    lb = balancer([good, bad], pool={"retry": "off", "outlier": "off"})
    assert sorted(get(lb.port).status for _ in range(10)) == [200] * 5 + [502] * 5


def test_no_error_for_what_the_client_did(balancer, backend):
    there = backend(lambda c, r: (c.backend.released.wait(10), c.send(reply())))
    lb = balancer(there)
    client = Client(lb.port)
    client.start("GET", "/")
    there.wait_requests(1)
    client.reset()
    lb.wait_idle()
    there.released.set()
    assert lb.backend(there)["errors"] == 0
    assert get(lb.port).status == 200


def test_an_error_page_for_head_has_no_body(balancer):
    lb = balancer(f"127.0.0.1:{free_port()}")
    with Client(lb.port) as client:
        first = client.request("HEAD", "/")
        assert first.status == 502
        assert client.is_closed() if first.closes else client.get().status == 502


def test_an_error_for_an_http_1_0_client(balancer):
    lb = balancer(f"127.0.0.1:{free_port()}")
    assert exchange(lb.port, b"GET / HTTP/1.0\r\n\r\n").status == 502


def test_the_error_page_carries_the_request_id_of_the_log(balancer):
    lb = balancer(f"127.0.0.1:{free_port()}")
    response = get(lb.port, "/", [("X-Request-ID", "find-me")])
    assert response.field("X-Request-ID") == "find-me"
