"""Requests, hostile and unusual: every case of hostile.py, alone, behind a valid request and followed by one.

Judged at both ends: what the client gets, and which bytes the backend received. A refused request ends its connection
and leaves no byte, or a part of a message on a connection that is closed; one that passes arrives in exactly one plain
form; what follows either is a request of its own or is never answered. Rules: RFC 9110, RFC 9112.
"""
import itertools
import re
import time

import pytest
from harness import TIMEOUT, Backend, Balancer, Client, echo, eventually, exchange, free_port, get, reply
from hostile import CASES, GET, HOST, field
from wire import STRANGER, Ledger

_numbers = itertools.count(1)


def heard(connection, request):
    """The answer carries the name of its request: nobody gets another one's."""
    mark = re.search(rb"m\d{7}", request.head)
    body = mark[0] if mark else b"a stranger"
    connection.send(reply(body)[:-len(body) if request.method == "HEAD" else None])


@pytest.fixture(scope="module")
def door(request, tmp_path_factory):
    """One balancer and one backend for all cases: what one leaves behind would show in another."""
    with Backend(heard) as there:
        pools = {"web": {"backends": [there], "health": "off"}}
        with Balancer(tmp_path_factory.mktemp("door"), pools) as lb:
            lb.there, lb.ledger, lb.expected, lb.may_be_cut = there, Ledger(there), {}, set()
            yield lb
        assert lb.ledger.objections(lb.may_be_cut) == []
        if not request.session.testsfailed:  # otherwise it has been said
            strangers = {mark: found for mark, found in lb.ledger.messages.items()
                         if mark not in lb.expected or len(found) != 1}
            assert strangers == {}


class Plain:
    """A valid request with a name of its own."""

    def __init__(self, close=False):
        self.mark = b"m%07d" % next(_numbers)
        self.data = b"GET /%s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (self.mark, b"Connection: close\r\n" if close else b"")

    def is_answered(self, door, client):
        response = client.response()
        assert response.status == 200 and response.body == self.mark
        door.expected[self.mark] = None


def send(client, data, fin):
    try:
        client.send(data)
        if fin:
            client.half_close()
    except ConnectionError:
        pass  # it may answer and close before it has read all


def verdict(door, client, case, mark):
    """Reads what the client gets for the case and checks it at both ends; true when the connection goes on."""
    is_head = case.data.startswith(b"HEAD ")
    response = client.head()
    refused = response.status in case.refused
    if not (is_head and refused):
        client.body(response, "HEAD" if is_head else "GET")
    if refused:
        assert response.closes
        assert response.field("Content-Type").startswith("text/plain") and (is_head or 10 < len(response.body) < 300)
        if response.status == 405:
            allowed = {method.strip() for method in (response.field("Allow") or "").split(",")}
            assert {"GET", "HEAD", "POST", "OPTIONS"} <= allowed and not allowed & {"CONNECT", "TRACE"}
    elif case.answered:
        assert response.status == case.answered and response.field("Allow")
    else:
        assert case.passed and response.status == 200, (response.status, response.body)
        assert response.body == (b"" if is_head else mark)
        door.expected[mark] = case.passed
    assert door.ledger.objections(door.may_be_cut) == []
    assert door.ledger.messages.pop(STRANGER, []) == []
    reached = door.ledger.messages.get(mark, [])
    if refused or case.answered:
        assert reached == [], "a request that is refused was forwarded"
        return not response.closes
    assert len(reached) == 1
    assert case.passed.objections(reached[0]) == []
    if case.ends is not None:
        assert response.closes or not case.ends
        assert not response.closes or case.ends
    return not response.closes


def ends(client):
    """Nothing more comes. A reset is as good: bytes may have been on their way when the balancer closed."""
    try:
        assert client.rest() == b"", "more than one response"
    except ConnectionResetError:
        pass


def use(door, case):
    """The case, and the name that it has this time."""
    number = next(_numbers)
    mark = b"m%07d" % number
    if case.begins:
        door.may_be_cut.add(mark)
    return case.named(number), mark


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_alone(door, case):
    case, mark = use(door, case)
    with Client(door.port) as client:
        send(client, case.data, case.fin)
        if verdict(door, client, case, mark):
            after = Plain()
            client.send(after.data)
            after.is_answered(door, client)
        else:
            ends(client)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_behind_a_valid_request(door, case):
    """Pipelined: the valid one is served, whatever comes behind it."""
    before, (case, mark) = Plain(), use(door, case)
    with Client(door.port) as client:
        send(client, before.data + case.data, case.fin)
        before.is_answered(door, client)
        if not verdict(door, client, case, mark):
            ends(client)


@pytest.mark.parametrize("case", [case for case in CASES if not case.fin], ids=lambda case: case.name)
def test_followed_by_a_valid_request(door, case):
    """That is served when the connection goes on, and never looked at otherwise."""
    (case, mark), after = use(door, case), Plain()
    with Client(door.port) as client:
        send(client, case.data + after.data, case.fin)
        if verdict(door, client, case, mark):
            after.is_answered(door, client)
        else:
            ends(client)
            door.ledger.read()
            assert after.mark not in door.ledger.messages, "what follows a refused request was forwarded"


# ---- what a table cannot say -----------------------------------------------------------------------------------------


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


def test_refused_requests_are_counted_and_do_not_count_as_traffic(balancer, backend):
    lb = balancer(there := backend())
    for _ in range(5):
        exchange(lb.port, b"nonsense\r\n\r\n")
    lb.wait_idle()
    assert lb.vbctl("status")["requests"] == 0
    assert lb.backend(there)["requests"] == 0


def test_a_request_id_named_by_connection_is_not_believed(balancer, backend):
    """It is for one hop, so it is not this request's; what the backend gets is ours, and the client sees the same."""
    lb = balancer(there := backend())
    own = get(lb.port, "/", [("Connection", "x-request-id"), ("X-Request-ID", "believe-me-not")]).field("X-Request-ID")
    assert own and own != "believe-me-not"
    assert there.requests[0].field("X-Request-ID") == own


@pytest.mark.parametrize("target", ["*", "/", "/any"])
def test_options_of_our_own_needs_no_backend(balancer, target):
    """RFC 9110 7.6.2: with Max-Forwards: 0 the recipient must answer itself."""
    lb = balancer(f"127.0.0.1:{free_port()}")
    with Client(lb.port) as client:
        for _ in range(2):
            response = client.request("OPTIONS", target, [("Max-Forwards", "0")])
            assert response.status == 200
            allowed = {method.strip() for method in response.field("Allow").split(",")}
            assert {"GET", "HEAD", "POST", "OPTIONS"} <= allowed and not allowed & {"CONNECT", "TRACE"}


# ---- limits.body -----------------------------------------------------------------------------------------------------

KIB = {"limits": {"body": "1KiB"}}
TOO_LARGE = 1025


def post_chunks(*sizes, last=True):
    return b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n" % size + b"x" * size + b"\r\n" for size in sizes) + (b"0\r\n\r\n" if last else b"")


def all_connections_are_closed(there):
    eventually(lambda: not any(connection.is_open for connection in there.connections),
               "the backend's connection is closed")


def test_413_at_once_for_a_length_beyond_the_limit(balancer, backend):
    """Nothing of the body has been sent, nothing has been asked of a backend."""
    lb = balancer(there := backend(), config=KIB)
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", TOO_LARGE)])
        response = client.response()
        assert response.status == 413 and response.closes and response.field("Content-Type").startswith("text/plain")
        assert client.is_closed()
    assert there.received == b""


def test_413_for_a_client_that_waits_for_100(balancer, backend):
    lb = balancer(there := backend(), config=KIB)
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", TOO_LARGE), ("Expect", "100-continue")])
        assert client.head().status == 413
    assert there.received == b""


def test_413_for_a_client_that_does_not_wait(balancer, backend):
    """It is still sending when the answer comes; what it sends is no request."""
    lb = balancer(there := backend(), config=KIB)
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", 1000000)])
        try:
            client.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 20000)
        except ConnectionError:
            pass
        assert client.response().status == 413
        try:
            assert client.rest() == b""
        except ConnectionError:
            pass
    assert there.received == b""


@pytest.mark.parametrize("data", [post_chunks(TOO_LARGE), post_chunks(1000, 24, 1, last=False),
                                  post_chunks(*[1] * TOO_LARGE),
                                  post_chunks(1024, 100000)],
                         ids=["one chunk", "as soon as it is passed", "small chunks", "a large second chunk"])
def test_413_for_chunks_beyond_the_limit(balancer, backend, data):
    lb = balancer(there := backend(), config=KIB)
    response = exchange(lb.port, data)
    assert response.status == 413 and response.closes
    all_connections_are_closed(there)
    assert there.requests == [], "a cut body was passed off as a whole one"
    lb.wait_idle()


def test_chunks_that_reach_the_limit_in_several_reads(balancer, backend):
    """The backend has part of it: its connection ends, and the client is told."""
    lb = balancer(there := backend(), config=KIB)
    with Client(lb.port) as client:
        client.send(post_chunks(1000, last=False))
        eventually(lambda: there.received.count(b"x") >= 1000, "the first part has arrived")
        client.send(b"19\r\n" + b"y" * 25 + b"\r\n")
        response = client.response()
        assert response.status == 413 and response.closes and client.is_closed()
    all_connections_are_closed(there)
    assert there.requests == []


def test_bodies_up_to_the_limit_pass(balancer, backend):
    lb = balancer(there := backend(echo), config=KIB)
    with Client(lb.port) as client:
        for _ in range(2):
            assert client.request("POST", "/", body=b"x" * 1024).body == b"x" * 1024
            client.send(post_chunks(1000, 24))
            assert client.response().body == b"x" * 1024
            client.send(post_chunks(*[1] * 1024))
            assert client.response().body == b"x" * 1024
    assert len(there.connections) == 1


def test_without_a_limit_any_body_passes(balancer, backend):
    lb = balancer(backend(echo), config={"limits": {"body": 0}})
    with Client(lb.port) as client:
        assert len(client.request("POST", "/", body=b"x" * 3000000).body) == 3000000


def test_a_refused_body_behind_a_good_request(balancer, backend):
    lb = balancer(there := backend(), config=KIB)
    with Client(lb.port) as client:
        client.send(GET + HOST + b"\r\nPOST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % TOO_LARGE)
        assert [client.response().status, client.response().status] == [200, 413]
        assert client.is_closed()
    assert [request.method for request in there.requests] == ["GET"]


def test_a_long_connection_field_costs_little(balancer, backend):
    """Each of its members is compared with each field: both are bounded."""
    lb = balancer(there := backend(), config={"limits": {"header_bytes": "1MiB", "headers": 1000}})
    many = b"a:\r\n" * 990
    response = exchange(lb.port, b"GET / HTTP/1.1\r\nHost: x\r\n" + many + b"Connection: " + b"a," * 500000 + b"\r\n\r\n")
    assert response.status == 431
    assert there.received == b""
