"""Nonsense is refused at the door: right status, a sentence, and no byte of it reaches a backend (http-rules.md)."""
import time

import pytest
from harness import TIMEOUT, Backend, Balancer, Client, eventually, exchange, get

HOST = b"Host: x\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


def field(line):
    return GET + HOST + line + b"\r\n\r\n"


def framed(lines, body=b"hello"):
    return POST + lines + b"\r\n\r\n" + body


# name: (bytes, statuses that the rule allows)
REFUSED = {
    # request line (RFC 9112 3)
    "no request at all": (b"hello world\r\n\r\n", {400}),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), {400}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400}),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", {400, 505}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    "HTTP/1.x": (b"GET / HTTP/1.x\r\n" + HOST + b"\r\n", {400}),
    "http in small letters": (b"GET / http/1.1\r\n" + HOST + b"\r\n", {400}),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a space in the target": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a tab in place of a space": (b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a space at the end": (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", {400}),
    "a method that is no token": (b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a target without slash": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "* for GET": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", {405, 501}),
    "many empty lines": (b"\r\n" * 1000 + GET + HOST + b"\r\n", {400}),
    # Host (RFC 9112 3.2: 400 MUST)
    "no Host": (GET + b"\r\n", {400}),
    "two Hosts": (GET + HOST + b"Host: y\r\n\r\n", {400}),
    "the same Host twice": (GET + HOST + HOST + b"\r\n", {400}),
    "a list of Hosts": (GET + b"Host: a, b\r\n\r\n", {400}),
    "a path in Host": (GET + b"Host: a/b\r\n\r\n", {400}),
    "userinfo in Host": (GET + b"Host: u@a\r\n\r\n", {400}),
    "a bad port in Host": (GET + b"Host: a:8x\r\n\r\n", {400}),
    "a space in Host": (GET + b"Host: a b\r\n\r\n", {400}),
    "a target that contradicts Host": (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", {400}),
    # fields (RFC 9110 5, RFC 9112 5)
    "a line without colon": (field(b"nonsense"), {400}),
    "an empty name": (field(b": x"), {400}),
    "a space before the colon": (field(b"X : x"), {400}),
    "a space in a name": (field(b"X Y: x"), {400}),
    "an 8-bit name": (field(b"X\xe4: x"), {400}),
    "NUL in a value": (field(b"X: a\0b"), {400}),
    "CR in a value": (field(b"X: a\rb"), {400}),
    "a control character in a value": (field(b"X: a\x01b"), {400}),
    "a folded line": (field(b"X: a\r\n b"), {400}),
    "white space before the first field": (GET + b" X: a\r\n" + HOST + b"\r\n", {400}),
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", {400}),
    "CR CR LF": (GET + HOST + b"X: a\r\r\n\r\n", {400}),
    # framing (RFC 9112 6)
    "length and chunked": (framed(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), {400}),
    "two lengths": (framed(b"Content-Length: 5\r\nContent-Length: 6"), {400}),
    "a list of lengths": (framed(b"Content-Length: 5, 6"), {400}),
    "an empty length": (framed(b"Content-Length: "), {400}),
    "a length with a sign": (framed(b"Content-Length: +5"), {400}),
    "a negative length": (framed(b"Content-Length: -5"), {400}),
    "a hexadecimal length": (framed(b"Content-Length: 0x5"), {400}),
    "a length with letters": (framed(b"Content-Length: 5z"), {400}),
    "a length with an underscore": (framed(b"Content-Length: 1_0"), {400}),
    "a length beyond 2^64": (framed(b"Content-Length: 18446744073709551621"), {400}),
    "a folded length": (framed(b"Content-Length:\r\n 5"), {400}),
    "gzip as the last coding": (framed(b"Transfer-Encoding: chunked, gzip"), {400, 501}),
    "identity": (framed(b"Transfer-Encoding: identity"), {400, 501}),
    "xchunked": (framed(b"Transfer-Encoding: xchunked"), {400, 501}),
    "chunked twice": (framed(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"), {400, 501}),
    "chunked in two fields": (framed(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
                              {400, 501}),
    "a comma behind chunked": (framed(b"Transfer-Encoding: chunked,", b"0\r\n\r\n"), {400, 501}),
    "quoted chunked": (framed(b'Transfer-Encoding: "chunked"', b"0\r\n\r\n"), {400, 501}),
    "VT before chunked": (framed(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"), {400, 501}),
    "a space before the colon of Transfer-Encoding": (framed(b"Transfer-Encoding : chunked", b"0\r\n\r\n"), {400}),
    "a folded Transfer-Encoding": (framed(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"), {400}),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "Connection drops Host": (field(b"Connection: host"), {400}),
    "Connection drops Content-Length": (framed(b"Content-Length: 5\r\nConnection: content-length"), {400}),
    "Connection drops Transfer-Encoding": (framed(b"Transfer-Encoding: chunked\r\nConnection: transfer-encoding",
                                                  b"0\r\n\r\n"), {400}),
    # limits
    "a target of 20 KB": (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414}),
    "a target without end": (b"GET /" + b"a" * 100000, {414}),
    "a field of 20 KB": (field(b"X: " + b"a" * 20000), {431}),
    "a head of 20 KB": (field(b"\r\n".join(b"X%d: %s" % (i, b"a" * 300) for i in range(60))), {431}),
    "200 fields": (field(b"\r\n".join(b"X%d: a" % i for i in range(200))), {431}),
    "a head without end": (GET + HOST + b"X: a\r\n" * 10000, {431}),
}


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """One balancer and one backend for all inputs: what one leaves behind would show in the next."""
    with Backend() as there:
        pools = {"web": {"backends": [there], "health": "off"}}
        with Balancer(tmp_path_factory.mktemp("door"), pools) as lb:
            lb.there = there
            yield lb


@pytest.mark.parametrize("data, statuses", REFUSED.values(), ids=REFUSED)
def test_nonsense_is_refused(door, data, statuses):
    response = exchange(door.port, data)
    assert response.status in statuses
    assert response.field("Content-Type").startswith("text/plain") and 10 < len(response.body) < 300
    assert response.closes
    assert door.there.received == b"", "a part of it was forwarded"


@pytest.mark.parametrize("data", [REFUSED[name][0] for name in ("no Host", "length and chunked", "a folded line")])
def test_nonsense_behind_a_good_request_is_refused(balancer, backend, data):
    there = backend()
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(GET + HOST + b"\r\n" + data + GET + HOST + b"\r\n")
        assert client.response().status == 200
        assert client.response().status == 400
        assert client.is_closed()
    assert len(there.requests) == 1


BAD_CHUNKS = {
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"5_\r\nhello\r\n0\r\n\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "17 digits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "more data than the size": b"5\r\nhello world\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * 100000 + b"\r\nhello\r\n0\r\n\r\n",
    "endless trailers": b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * 20000 + b"\r\n",
    "a trailer without colon": b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_bad_chunks_never_become_a_request(balancer, backend, body):
    """RFC 9112 7.1. The head may be on its way by then; the backend must see that the rest did not come."""
    there = backend()
    lb = balancer(there)
    response = exchange(lb.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + GET + HOST + b"\r\n")
    assert response.status == 400 and response.closes
    eventually(lambda: not any(c.is_open for c in there.connections), "the backend's connection is closed")
    assert there.requests == []


GOOD_CHUNKS = {
    "leading zeros": b"005\r\nhello\r\n0\r\n\r\n",
    "large letters": b"5\r\nhello\r\nA\r\n0123456789\r\n000\r\n\r\n",
    "extensions": b"5;a=b\r\nhello\r\n6;c\r\n world\r\n0;x\r\n\r\n",
    "a quoted extension": b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
    "trailers": b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\nX-Two: 2\r\n\r\n",
}


@pytest.mark.parametrize("body", [
    *(pytest.param(body, id=name) for name, body in GOOD_CHUNKS.items()),
    pytest.param(b"5;a=b;c=d\r\nhello\r\n0\r\n\r\n", id="several extensions", marks=pytest.mark.xfail(
        reason="llhttp 8.1 (Debian 12) refuses a second extension in a chunk line, RFC 9112 7.1.1 allows it")),
])
def test_unusual_chunks_are_fine(balancer, backend, body):
    there = backend()
    with Client(balancer(there).port) as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + GET + HOST + b"\r\n")
        assert [client.response().status for _ in range(2)] == [200, 200]
    assert there.requests[0].body.startswith(b"hello")
    assert b";" not in there.received.split(b"\r\n\r\n", 1)[1].split(b"hello")[0], "extensions are for one hop"


def test_trailers_never_become_header_fields(balancer, backend):
    """RFC 9110 6.5.1 forbids these as trailers: they may be dropped, or the request refused, but never believed."""
    there = backend()
    with Client(balancer(there).port) as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
                    b"Content-Length: 99\r\nHost: evil\r\n\r\n" + GET + HOST + b"\r\n")
        if client.response().status == 200:
            assert client.response().status == 200
    for request in there.requests:
        assert request.field("Content-Length") is None and request.fields("Host") == ["x"]


def test_a_target_of_8000_bytes_is_fine(balancer, backend):
    """RFC 9112 3: at least 8000 octets should be supported."""
    there = backend()
    assert get(balancer(there).port, "/" + "a" * 7990).status == 200
    assert len(there.requests[0].target) == 7991


def test_limits_can_be_set(balancer, backend):
    lb = balancer(backend(), config={"limits": {"header_bytes": "4KiB", "headers": 10}})
    assert get(lb.port, "/" + "a" * 3000).status == 200
    assert exchange(lb.port, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n").status == 414
    assert exchange(lb.port, field(b"X: " + b"a" * 5000)).status == 431
    assert get(lb.port, "/", [("X", "a")] * 9).status == 200
    assert exchange(lb.port, field(b"X: a\r\n" * 9 + b"X: a")).status == 431


def test_408_when_the_head_is_too_slow(balancer, backend):
    """In total, not between bytes: a byte now and then does not help (slowloris)."""
    lb = balancer(there := backend(), config={"timeouts": {"header": "300ms"}})
    with Client(lb.port) as client:
        client.socket.settimeout(0.02)
        deadline, response = time.monotonic() + TIMEOUT, None
        while response is None and time.monotonic() < deadline:
            client.send(b"G")
            try:
                response = client.response()
            except TimeoutError:
                pass
        assert response.status == 408 and response.closes
    assert there.received == b""


def test_the_answer_is_not_lost_when_the_client_still_sends(balancer, backend):
    """RFC 9112 9.6: closing with unread bytes resets, and the reset may overtake the response."""
    lb = balancer(backend())
    for _ in range(20):
        with Client(lb.port) as client:
            client.send(b"nonsense\r\n\r\n" + b"x" * 200000)
            assert client.response().status == 400


def test_refused_requests_are_counted_and_do_not_count_as_traffic(door):
    before = door.vbctl("status")
    for _ in range(5):
        exchange(door.port, b"nonsense\r\n\r\n")
    door.wait_idle()
    assert door.vbctl("status")["requests"] == before["requests"]
    assert door.backend(door.there)["requests"] == 0
