"""What a request may take: the size of its body and head, and time (README, "limits" and "timeouts")."""
import http.client
import os
import shutil
import subprocess
import time

import pytest
from harness import TIMEOUT, Client, Truncated, echo, eventually, exchange, post

CURL = shutil.which("curl")
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def all_gone(lb):
    eventually(lambda: lb.total("connections") == 0, "no client is left")


# ---- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit, size", [(1000, 1000), ("1KiB", 1024), ("2MiB", 2 << 20)])
def test_a_body_of_exactly_the_limit_passes(balancer, backend, limit, size):
    there = backend(echo)
    lb = balancer(there, config={"limits": {"body": limit}})
    body = os.urandom(size)
    with Client(lb.port) as client:
        assert client.request("POST", "/", body=body).body == body
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body[:1]) + chunk(body[1:]) + b"0\r\n\r\n")
        assert client.response().body == body
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + b"0\r\nX-Trailer: 1\r\n\r\n")
        assert client.response().body == body, "chunk lines and trailers do not count"
    assert lb.total("refused") == 0


@pytest.mark.parametrize("limit, size", [(1000, 1001), ("1KiB", 1025), ("2MiB", (2 << 20) + 1), (1, 10 ** 18)])
def test_a_length_over_the_limit_is_refused_before_a_byte_reaches_a_backend(balancer, backend, workers, limit, size):
    there = backend()
    lb = balancer(there, workers=workers, config={"limits": {"body": limit}})
    response = exchange(lb.port, POST + b"Content-Length: %d\r\n\r\n" % size)
    assert response.status == 413 and response.closes
    response = exchange(lb.port, POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % size)
    assert response.status == 413
    lb.wait_idle()
    assert there.connections == [] and lb.backend(there)["requests"] == 0
    assert lb.total("refused") == 2


def cut_at(there, lb):
    """What a backend got of the one request that was cut."""
    eventually(lambda: there.connections and not there.connections[0].is_open, "the backend's connection is closed")
    lb.wait_idle()
    assert there.requests == [], "a request that was cut must not look whole"
    return there.received.split(b"\r\n\r\n", 1)[1]


def test_a_chunked_body_is_refused_once_it_has_passed_the_limit(balancer, backend, workers):
    there = backend()
    lb = balancer(there, workers=workers, config={"limits": {"body": 1000}})
    with Client(lb.port) as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 900))
        eventually(lambda: b"x" * 900 in there.received, "what is below the limit streams")
        client.send(chunk(b"y" * 101))
        response = client.response()
        assert response.status == 413 and response.closes
        assert client.is_closed()
    assert cut_at(there, lb).count(b"y") <= 100, "more than the limit"
    assert lb.backend(there)["errors"] == 0, "it was not the backend's fault"
    assert lb.total("refused") == 1
    there.connections.clear()
    assert post(lb.port, "/", b"x" * 1000).status == 200


@pytest.mark.parametrize("pieces", [1, 7, 1001])
def test_a_whole_chunked_body_over_the_limit(balancer, backend, pieces):
    """Also when all of it comes at once, with its end."""
    there = backend()
    lb = balancer(there, config={"limits": {"body": 1000}})
    body = b"".join(chunk(b"z" * (1001 // pieces + (i < 1001 % pieces))) for i in range(pieces))
    response = exchange(lb.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
                        b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 413
    lb.wait_idle()
    assert there.requests == [] and b"smuggled" not in there.received
    if there.received:
        cut_at(there, lb)


def test_a_limit_is_for_each_request(balancer, backend):
    lb = balancer(backend(echo), config={"limits": {"body": 100}})
    with Client(lb.port) as client:
        assert [client.request("POST", "/", body=b"x" * 100).status for _ in range(20)] == [200] * 20


def test_a_backend_that_has_answered_already_is_heard(balancer, backend):
    """The limit is passed while the response is on its way: what the client has begun to get stays what it is."""
    there = backend(lambda c, r: (c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"a" * 50), c.hang()),
                    early=True)
    lb = balancer(there, config={"limits": {"body": 10}})
    with Client(lb.port) as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"1234567890"))
        response = client.head()
        assert response.status == 200
        client.send(chunk(b"one too many"))
        with pytest.raises((Truncated, ConnectionError)):
            client.body(response)
        assert b"413" not in client._buffer
    lb.wait_idle()


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("args", [["-H", "Expect:"], [], ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
                                  ["-H", "Transfer-Encoding: chunked"]], ids=" ".join)
def test_curl_sees_413(balancer, backend, args, tmp_path, workers):
    there = backend()
    lb = balancer(there, workers=workers, config={"limits": {"body": "64KiB"}})
    (tmp_path / "file").write_bytes(os.urandom(8_000_000))
    result = subprocess.run([CURL, "-sS", "--noproxy", "*", "--max-time", str(TIMEOUT), "-o", "/dev/null", "-w",
                             "%{http_code}", *args, "--data-binary", f"@{tmp_path}/file",
                             f"http://127.0.0.1:{lb.port}/"], capture_output=True, text=True, timeout=TIMEOUT + 5)
    assert (result.returncode, result.stdout, result.stderr) == (0, "413", "")
    assert there.requests == []
    all_gone(lb)


@pytest.mark.parametrize("body, kind", [(b"x" * 8_000_000, "length"), ([b"x" * 100_000] * 80, "chunked")],
                         ids=["length", "chunked"])
def test_http_client_sees_413(balancer, backend, body, kind, workers):
    there = backend()
    lb = balancer(there, workers=workers, config={"limits": {"body": "64KiB"}})
    client = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=TIMEOUT)
    client.request("POST", "/", body=iter(body) if kind == "chunked" else body, encode_chunked=kind == "chunked",
                   headers={"Transfer-Encoding": "chunked"} if kind == "chunked" else {})
    response = client.getresponse()
    assert response.status == 413 and response.read() != b""
    client.close()
    assert there.requests == []
    all_gone(lb)


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_head_has_a_time_in_total(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"timeouts": {"header": "1s"}})
    began = time.monotonic()
    with Client(lb.port) as client:
        client.trickle(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000, 0.1)
        response = client.response()
        assert response.status == 408 and response.closes
        assert 0.9 < time.monotonic() - began < 5
        assert client.is_closed()
    all_gone(lb)


def test_a_second_head_has_it_too(balancer, backend):
    lb = balancer(backend(), config={"timeouts": {"header": "500ms"}})
    with Client(lb.port) as client:
        assert client.get().status == 200
        client.send(b"GET / HTTP/1.1\r\n")
        assert client.response().status == 408


def test_a_body_has_a_time_between_its_bytes(balancer, backend, workers):
    there = backend()
    lb = balancer(there, workers=workers, config={"timeouts": {"body": "1s"}})
    for framing, data in ((b"Content-Length: 100\r\n", b"x"), (b"Transfer-Encoding: chunked\r\n", b"64\r\nx")):
        began = time.monotonic()
        with Client(lb.port) as client:
            client.send(POST + framing + b"\r\n" + data)
            response = client.response()
            assert response.status == 408 and response.closes
            assert 0.9 < time.monotonic() - began < 5
    lb.wait_idle()
    assert there.requests == [] and lb.backend(there)["errors"] == 0
    eventually(lambda: not any(connection.is_open for connection in there.connections), "they are closed")


def test_a_slow_body_has_no_time_in_total(balancer, backend):
    there = backend(echo)
    lb = balancer(there, config={"timeouts": {"body": "1s", "header": "500ms"}})
    with Client(lb.port) as client:
        client.send(POST + b"Content-Length: 12\r\n\r\n")
        client.trickle(b"hello, world", 0.2)
        assert client.response().body == b"hello, world"


@pytest.mark.parametrize("data, status", [
    (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1100 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 10 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 9 + b"\r\n", 200),
], ids=["a long target", "a long field", "11 fields", "10 fields"])
def test_sizes_of_heads(balancer, backend, data, status):
    lb = balancer(backend(), config={"limits": {"header_bytes": "1KiB", "headers": 10}})
    with Client(lb.port) as client:
        for i in range(0, len(data), 300):
            client.send(data[i:i + 300])
        assert client.response().status == status
