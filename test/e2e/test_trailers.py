"""Trailer sections (RFC 9110 6.5, RFC 9112 7.1.2): they pass, both ways, apart from what may not stand there.

What would be framing, routing, credentials or a field of this hop is dropped and the message accepted all the same; an
HTTP/1.0 client, and a message that leaves without chunks, gets none. TE: trailers, an offer of one hop, is passed on.
"""
import pytest
from harness import Client, eventually, exchange, reply
from wire import Diag, messages

POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
HELLO = b"5\r\nhello\r\n"

# name: lines
PASS = {
    "one": [b"X-Checksum: 1"],
    "two": [b"X-Checksum: 1", b"X-Signature: a b"],
    "the same name twice": [b"X-Checksum: 1", b"x-checksum: 2"],
    "an empty value": [b"X-Empty:"],
    "8-bit bytes": [b"X-Latin: \xe4\xff"],
    "every character of a name": [b"!#$%&'*+-.^_`|~09AZaz: a"],
    "as gRPC does": [b"grpc-status: 0", b"grpc-message: fine"],
    "as HTTP says": [b"Server-Timing: a", b"ETag: \"x\"", b"Content-Digest: sha-256=:x:"],
    "names that begin like others": [b"Hosts: a", b"TEs: b", b"Content-Length-X: 1", b"X-Host: c", b"Cookies: d"],
    "many": [b"X-%d: %d" % (i, i) for i in range(40)],
    "a long one": [b"X-Long: " + b"a" * 4000],
}

# Framing, routing, modifiers, credentials, fields of one hop, and those of this proxy.
FORBIDDEN = [b"Content-Length: 99", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", b"Host: evil",
             b"Connection: close",
             b"Connection: X-Checksum", b"Keep-Alive: timeout=1", b"Proxy-Connection: close", b"TE: trailers",
             b"Trailer: X-Checksum",
             b"Upgrade: h2c", b"Authorization: Basic eDp5", b"Proxy-Authorization: x", b"Cookie: a=b",
             b"Set-Cookie: a=b", b"Forwarded: for=10.1.1.1", b"X-Forwarded-For: 10.1.1.1", b"X-Forwarded-Proto: https",
             b"X-Forwarded-Host: evil", b"Expect: 100-continue", b"Max-Forwards: 0"]


def chunks(lines, data=HELLO):
    return data + b"0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def pairs(lines):
    return [(name.decode(), value.strip(b" ").decode("latin-1")) for name, _,
            value in (line.partition(b":") for line in lines)]


def spelled(name):
    """In other cases, because names have none."""
    return [name, name.swapcase(), name.upper()]


# ---- of requests -----------------------------------------------------------------------------------------------------


def received(there):
    """The messages that the backend got, read strictly."""
    found, rest = messages(there.received)
    assert rest == b""
    return found


def post_twice(lb, data, pieces=None):
    """Over one connection, so that nothing of the first can be left behind."""
    with Client(lb.port) as client:
        for _ in range(2):
            if pieces:
                with Diag() as diag:
                    diag.send_apart(client.socket, data, pieces)
            else:
                client.send(data)
            assert client.response().status == 200


@pytest.mark.parametrize("pieces", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("lines", PASS.values(), ids=PASS)
def test_trailers_of_a_request_pass(balancer, backend, lines, pieces):
    there = backend()
    post_twice(balancer(there), POST + b"\r\n" + chunks(lines), pieces)
    for message in received(there):
        assert message.body == b"hello" and message.trailers == pairs(lines)
        assert not {name for name, _ in pairs(lines)} & {name for name,
                                                         _ in message.fields}, "a trailer became a header field"


@pytest.mark.parametrize("line", FORBIDDEN, ids=lambda line: line.decode())
def test_a_forbidden_trailer_of_a_request_is_dropped(balancer, backend, line):
    name, _, value = line.partition(b":")
    there = backend()
    lb = balancer(there)
    for variant in spelled(name):
        post_twice(lb, POST + b"\r\n" + chunks([b"X-First: 1", variant + b":" + value, b"X-Last: 2"]))
    found = received(there)
    assert len(found) == 6
    for message in found:
        assert message.body == b"hello" and message.trailers == [("X-First", "1"), ("X-Last", "2")]
        assert message.values("Host") == ["x"] and message.values("Content-Length") == []
        assert message.values("X-Forwarded-For") == ["127.0.0.1"]


def test_only_forbidden_trailers(balancer, backend):
    there = backend()
    post_twice(balancer(there), POST + b"\r\n" + chunks(FORBIDDEN))
    assert [message.trailers for message in received(there)] == [[], []]


MIXED = [line for i in range(20) for line in (b"X-%d: %d" % (i, i), FORBIDDEN[i])]


def test_good_and_forbidden_trailers_in_turn(balancer, backend):
    there = backend()
    lb = balancer(there)
    for pieces in (None, 1):
        post_twice(lb, POST + b"\r\n" + chunks(MIXED), pieces)
    assert [message.trailers for message in received(there)] == [pairs(MIXED[::2])] * 4


def test_trailers_behind_no_body(balancer, backend):
    there = backend()
    post_twice(balancer(there), POST + b"\r\n" + chunks([b"X-Checksum: 1"], data=b""))
    assert [(message.body, message.trailers) for message in received(there)] == [(b"", [("X-Checksum", "1")])] * 2


def test_the_trailer_field_announces_them(balancer, backend):
    """RFC 9110 6.6.2: an ordinary field."""
    there = backend()
    post_twice(balancer(there), POST + b"Trailer: X-Checksum\r\n\r\n" + chunks([b"X-Checksum: 1"]))
    for message in received(there):
        assert message.values("Trailer") == ["X-Checksum"] and message.trailers == [("X-Checksum", "1")]


def test_a_trailer_section_that_comes_late(balancer, backend):
    """The body streams on; the end of the message waits for the end of the section."""
    there = backend()
    with Client(balancer(there).port) as client:
        client.send(POST + b"\r\n" + HELLO + b"0\r\nX-Check")
        eventually(lambda: b"hello\r\n" in there.received, "the body is there")
        client.send(b"sum: 1\r\n")
        client.send(b"\r\n")
        assert client.response().status == 200
    assert received(there)[0].trailers == [("X-Checksum", "1")]


@pytest.mark.parametrize("line", [b"nonsense", b": x", b"X : x", b" X: x", b"X: a\r\n b", b"X: a\x00", b"X: a\rb",
                                  b"X: a\x01b", b"X\xe4: a", b"X: a\n", b"X(: a"], ids=ascii)
def test_a_bad_trailer_is_refused(balancer, backend, line):
    """RFC 9112 5: as if it were a header field; the backend sees that the message was cut."""
    there = backend()
    lb = balancer(there)
    response = exchange(lb.port, POST + b"\r\n" + chunks([b"X-First: 1", line]) +
                        b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 400 and response.closes
    eventually(lambda: not any(connection.is_open for connection in there.connections),
               "the backend's connection is closed")
    assert there.requests == []


@pytest.mark.parametrize("lines", [[b"X: a"] * 50000, [b"X: " + b"a" * 500000],
                                   [b"X-%d: %s" % (i, b"a" * 1000) for i in range(64)],
                                   [b"Host: x"] * 50000], ids=["many", "a long one", "64 KB",
                                                               "many that would be dropped"])
def test_trailers_are_bounded(balancer, backend, lines):
    there = backend()
    lb = balancer(there)
    response = exchange(lb.port, POST + b"\r\n" + chunks(lines))
    assert response.status in (400, 413, 431) and response.closes
    eventually(lambda: not any(connection.is_open for connection in there.connections),
               "the backend's connection is closed")
    assert there.requests == []


# ---- of responses ----------------------------------------------------------------------------------------------------


def answer(data, pieces=None):
    def do(connection, request):
        if pieces:
            with Diag() as diag:
                diag.send_apart(connection.socket, data, pieces)
        else:
            connection.send(data)
    return do


def lines_of(response):
    return response.trailers.split(b"\r\n")[:-1]


@pytest.mark.parametrize("pieces", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("lines", PASS.values(), ids=PASS)
def test_trailers_of_a_response_pass(balancer, backend, lines, pieces):
    there = backend(answer(OK + b"\r\n" + chunks(lines), pieces))
    with Client(balancer(there).port) as client:
        for _ in range(2):
            response = client.get()
            assert response.body == b"hello" and pairs(lines_of(response)) == pairs(lines)
            assert not {name for name, _ in pairs(lines)} & {name for name, _ in response.headers}
    assert len(there.connections) == 1, "its connection could have been used again"


@pytest.mark.parametrize("line", FORBIDDEN, ids=lambda line: line.decode())
def test_a_forbidden_trailer_of_a_response_is_dropped(balancer, backend, line):
    name, _, value = line.partition(b":")
    there = backend([OK + b"\r\n" + chunks([b"X-First: 1", variant + b":" + value, b"X-Last: 2"])
                     for variant in spelled(name)])
    with Client(balancer(there).port) as client:
        for _ in range(3):
            response = client.get()
            assert response.body == b"hello" and pairs(lines_of(response)) == [("X-First", "1"), ("X-Last", "2")]
            assert response.field("Content-Length") is None and response.field("Set-Cookie") is None
    assert len(there.connections) == 1


def test_good_and_forbidden_trailers_of_a_response_in_turn(balancer, backend):
    data = OK + b"\r\n" + chunks(MIXED)
    with Client(balancer(backend([answer(data), answer(data, 1)])).port) as client:
        for _ in range(3):
            assert pairs(lines_of(client.get())) == pairs(MIXED[::2])


def test_an_http_1_0_client_gets_no_trailers(balancer, backend):
    """It gets no chunks, so there is no place for them."""
    there = backend(OK + b"\r\n" + chunks([b"X-Checksum: 1"]))
    lb = balancer(there)
    for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"):
        with Client(lb.port) as client:
            client.send(head)
            response = client.response()
            assert response.body == b"hello" and response.field("X-Checksum") is None


def test_an_http_1_0_client_is_not_told_of_trailers(balancer, backend):
    """RFC 9112 7.1.2, RFC 9110 6.6.2: where the chunks go, the announcement goes."""
    there = backend(OK + b"Trailer: X-Checksum\r\n\r\n" + chunks([b"X-Checksum: 1"]))
    lb = balancer(there)
    assert exchange(lb.port, b"GET / HTTP/1.0\r\n\r\n").field("Trailer") is None
    with Client(lb.port) as client:
        assert client.get().field("Trailer") == "X-Checksum"


def test_trailers_of_a_response_to_head(balancer, backend):
    """It has no body, hence no trailer section; both connections go on."""
    there = backend([OK + b"Trailer: X-Checksum\r\n\r\n", reply("next")])
    with Client(balancer(there).port) as client:
        assert client.request("HEAD", "/").status == 200
        assert client.get().body == b"next"
    assert len(there.connections) == 1


# ---- TE --------------------------------------------------------------------------------------------------------------


def hop_fields(message):
    return message.values("TE"), [value.lower() for value in message.values("Connection")]


@pytest.mark.parametrize("lines", [b"TE: trailers\r\nConnection: TE\r\n",
                                   b"te: trailers\r\nConnection: keep-alive, te\r\n",
                                   b"Connection: TE\r\nTE:  trailers \r\n",
                                   b"TE:trailers\r\nconnection: x,TE\r\nX: secret\r\n"],
                         ids=ascii)
def test_te_trailers_is_passed_on(balancer, backend, lines):
    """RFC 9110 10.1.4: as an offer of this hop, so with Connection: TE."""
    there = backend()
    exchange(balancer(there).port, b"GET / HTTP/1.1\r\nHost: x\r\n" + lines + b"Connection: close\r\n\r\n")
    message, = received(there)
    assert hop_fields(message) == (["trailers"], ["te"]) and message.values("X") == []


@pytest.mark.parametrize("value", ["gzip", "trailers, gzip", "gzip, trailers", "trailers;q=1", "trailers,", ",trailers",
                                   "", "trailer", "\"trailers\"", "chunked", "trailers trailers"])
def test_any_other_te_is_dropped(balancer, backend, value):
    there = backend()
    lb = balancer(there)
    with Client(lb.port) as client:
        assert client.get("/", [("TE", value), ("Connection", "TE")]).status == 200
        assert client.get("/", [("TE", value)]).status == 200
    assert [hop_fields(message) for message in received(there)] == [([], [])] * 2


def test_two_te_fields_are_dropped(balancer, backend):
    there = backend()
    with Client(balancer(there).port) as client:
        assert client.get("/", [("TE", "trailers"), ("TE", "gzip"), ("Connection", "TE")]).status == 200
    assert hop_fields(received(there)[0]) == ([], [])


def test_te_is_not_made_up(balancer, backend):
    there = backend()
    with Client(balancer(there).port) as client:
        client.get()
        client.get("/", [("Connection", "TE")])
    assert [hop_fields(message) for message in received(there)] == [([], [])] * 2
