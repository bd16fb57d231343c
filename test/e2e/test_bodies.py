"""Bodies stream through, both ways, however they are cut into pieces; a cut body is never passed off as whole."""
import pytest
from harness import Client, Truncated, echo, eventually, exchange, get, post, reply

TEXT = bytes(range(256)) * 40


def chunked(data, size):
    parts = [data[i:i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED_REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000, 100000])
def test_chunked_bodies_arrive_intact(balancer, backend, size):
    lb = balancer(backend(lambda c, r: c.send(CHUNKED_RESPONSE + chunked(r.body, size))))
    with Client(lb.port) as client:
        for _ in range(2):
            client.send(CHUNKED_REQUEST + chunked(TEXT, size))
            assert client.response().body == TEXT


@pytest.mark.parametrize("length", [0, 1, 100, 65535, 65536, 65537, 1000000])
def test_bodies_with_a_length_arrive_intact(balancer, backend, length):
    lb = balancer(backend(echo))
    body = (TEXT * (length // len(TEXT) + 1))[:length]
    with Client(lb.port) as client:
        for _ in range(2):
            assert client.request("POST", "/", body=body).body == body


@pytest.mark.parametrize("chunk", [None, 7, 1000, 5000])
def test_small_bodies_arrive_intact_whatever_they_share_a_write_with(balancer, backend, chunk):
    """Up to some size they are copied behind their head, and leave with it as one piece."""
    def answer(connection, request):
        body = (TEXT * 2)[:int(request.target[1:])]
        connection.send(CHUNKED_RESPONSE + chunked(body, chunk) if chunk else reply(body))
    lb = balancer(backend(answer))
    with Client(lb.port) as client:
        for length in [*range(3500, 4200, 7), *range(8000, 8400, 40)]:
            assert client.get(f"/{length}").body == (TEXT * 2)[:length]


def test_byte_by_byte_in_both_directions(balancer, backend):
    answers = [reply("an answer"), CHUNKED_RESPONSE + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"]
    lb = balancer(backend([lambda c, r: c.send_slowly(answers[0]), lambda c, r: c.send_slowly(answers[1])]))
    with Client(lb.port) as client:
        for byte in b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello":
            client.send(bytes([byte]))
        assert client.response().text == "an answer"
        for byte in CHUNKED_REQUEST + b"2\r\nab\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        assert client.response().text == "abcde"


def test_a_response_streams(balancer, backend):
    """The first part reaches the client while the backend still thinks about the second."""
    def answer(connection, request):
        connection.send(CHUNKED_RESPONSE + b"5\r\nfirst\r\n")
        connection.backend.released.wait(10)
        connection.send(b"6\r\nsecond\r\n0\r\n\r\n")
    there = backend(answer)
    with Client(balancer(there).port) as client:
        client.start("GET", "/")
        response = client.head()
        assert client._until(b"first\r\n")
        there.released.set()
        client.body(response)
        assert response.body == b"second"


def test_a_request_streams(balancer, backend):
    """The first part of a body reaches the backend while the client still thinks about the second."""
    there = backend()
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(CHUNKED_REQUEST + b"5\r\nfirst\r\n")
        eventually(lambda: b"first" in there.received, "the first part has arrived")
        client.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert client.response().status == 200
    assert there.requests[0].body == b"firstsecond"


def test_expect_100_continue(balancer, backend):
    """RFC 9110 10.1.1: the client is told to go on, and then gets one final response."""
    def answer(connection, request):
        if request.field("Expect"):
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body(request)
        connection.send(reply(request.body))
    with Client(balancer(backend(answer, early=True)).port) as client:
        for body in (b"one", b"two"):
            client.start("POST", "/", [("Expect", "100-continue"), ("Content-Length", "3")])
            assert client.head().status == 100
            client.send(body)
            response = client.head()
            assert response.status == 200
            client.body(response)
            assert response.body == body


def test_expectation_refused_by_the_backend(balancer, backend):
    """It says no and waits for nothing: the client hears that, and what it sends then is not taken for a request."""
    there = backend(lambda c, r: c.send(reply("no", "417 Expectation Failed")), early=True)
    with Client(balancer(there).port) as client:
        client.start("POST", "/", [("Expect", "100-continue"), ("Content-Length", "30")])
        assert client.response().status == 417
        try:
            client.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.is_closed()
        except ConnectionError:
            pass
    assert [request.target for request in there.requests] == ["/"]


def test_a_response_before_the_upload_is_finished_reaches_the_client(balancer, backend):
    """RFC 9112 9.5: a client that sees an error while it sends a body stops sending."""
    def answer(connection, request):
        connection.send(reply("too much", "413 Content Too Large", [("Connection", "close")]))
        connection.digest_body(request)
    lb = balancer(backend(answer, early=True))
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", "100000000")])
        client.send(b"x" * 100000)
        response = client.response()
        assert response.status == 413 and response.text == "too much"


def test_a_backend_that_refuses_an_upload_and_closes_is_heard(balancer, backend):
    """It closes at once with unread bytes, so it resets: what it said before still counts."""
    def answer(connection, request):
        connection.send(reply("too much", "413 Content Too Large", [("Connection", "close")]))
        connection.socket.shutdown(1)
        connection.digest_body(request)
    lb = balancer(backend(answer, early=True))
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", "50000000")])
        try:
            for _ in range(50):
                client.send(b"x" * 1000000)
        except ConnectionError:
            pass
        assert client.response().status == 413


def cut(data):
    def answer(connection, request):
        connection.send(data)
        connection.close()
    return answer


CUT = {
    "content-length": reply(b"x" * 1000)[:-1],
    "in a chunk": CHUNKED_RESPONSE + b"5\r\nabc",
    "between chunks": CHUNKED_RESPONSE + b"5\r\nabcde\r\n",
    "before the end of the trailers": CHUNKED_RESPONSE + b"5\r\nabcde\r\n0\r\n",
    "broken chunk size": CHUNKED_RESPONSE + b"5\r\nabcde\r\nxyz\r\n",
}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
def test_a_client_notices_a_cut_response(balancer, backend, data):
    """RFC 9112 8: it must not look complete."""
    there = backend(cut(data))
    lb = balancer(there)
    with pytest.raises((Truncated, ConnectionError)):
        get(lb.port)
    lb.wait_log(there.address)
    lb.wait_idle()
    assert lb.backend(there)["errors"] == 1


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
def test_an_http_1_0_client_notices_a_cut_response(balancer, backend, data):
    """Where the end of the connection is the end of the body, only a reset can say that it is not."""
    lb = balancer(backend(cut(data)))
    with pytest.raises((Truncated, ConnectionError)):
        exchange(lb.port, b"GET / HTTP/1.0\r\n\r\n")


def test_a_backend_that_stops_in_mid_body_is_given_up(balancer, backend):
    def answer(connection, request):
        connection.send(reply(b"x" * 1000)[:-500])
        connection.hang()
    there = backend(answer)
    lb = balancer(there, pool={"timeouts": {"idle": "200ms"}})
    with pytest.raises((Truncated, ConnectionError)):
        get(lb.port)
    lb.wait_log(rf"{there.address}.*(stopped|time)")
    lb.wait_idle()


@pytest.mark.parametrize("begin", [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
                                   CHUNKED_REQUEST + b"5\r\nabcde\r\n"], ids=["content-length", "chunked"])
@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
def test_a_cut_request_is_never_passed_off_as_whole(balancer, backend, begin, end):
    there = backend()
    lb = balancer(there)
    client = Client(lb.port)
    client.send(begin)
    eventually(lambda: there.connections and b"\r\n\r\n" in there.received, "the request is on its way")
    getattr(client, end)()
    eventually(lambda: not any(c.is_open for c in there.connections), "the backend's connection is closed")
    assert there.requests == []
    client.close()
    lb.wait_idle()
    assert post(lb.port, "/", b"whole").status == 200


def test_a_client_that_stops_in_mid_body_is_given_up(balancer, backend):
    there = backend()
    lb = balancer(there, config={"timeouts": {"body": "200ms"}})
    with Client(lb.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        try:
            assert client.response().status == 408
        except (Truncated, ConnectionError):
            pass
    eventually(lambda: not any(c.is_open for c in there.connections), "the backend's connection is closed")
    assert there.requests == []
    lb.wait_idle()
