"""Another protocol on the same connection (RFC 9110 7.8): what is switched, what is not, and who hears of it."""
import random
import threading
import zlib

import pytest
from wire import Diag
from harness import MEASURABLE, TIMEOUT, Client, eventually, get, memory_kib, reply, run
from upgrade import (ASKS, MEMORY_KIB, SWITCHES, all_over, ask, round_trip, switch, switch_and_echo, switch_if_asked,
                     wait_until_stuck)


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


# ---- the handshake ---------------------------------------------------------------------------------------------------


def test_both_sides_see_a_proper_handshake(balancer, backend, workers):
    there = backend(switch_and_echo)
    lb = balancer(there, workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/chat?x=1", [("Connection", "keep-alive, X-Secret"), ("X-Secret", "1"),
                                          ("Keep-Alive", "timeout=5"), *ASKS, ("Origin", "http://x"),
                                          ("Sec-WebSocket-Protocol", "a, b")])
        response = client.head()
        assert response.status == 101
        assert response.field("Connection").lower() == "upgrade" and response.field("Upgrade") == "websocket"
        assert response.field("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert response.field("Content-Length") is None and response.field("Transfer-Encoding") is None
        assert round_trip(client)
    request = there.requests[0]
    assert request.line == "GET /chat?x=1 HTTP/1.1"
    assert request.field("Connection").lower() == "upgrade" and request.field("Upgrade") == "websocket"
    assert request.field("X-Secret") is None and request.field("Keep-Alive") is None
    for name, value in ASKS[2:] + [("Origin", "http://x"), ("Sec-WebSocket-Protocol", "a, b")]:
        assert request.field(name) == value
    assert request.field("X-Forwarded-For") == "127.0.0.1"


@pytest.mark.parametrize("headers", [
    [("connection", "UPGRADE"), ("upgrade", "WebSocket")],
    [("Connection", "keep-alive,upgrade , x"), ("Upgrade", "websocket")],
    [("Connection", "keep-alive"), ("Connection", "Upgrade"), ("Upgrade", "websocket")],
    [("Connection", "Upgrade"), ("Upgrade", "h2c, websocket")],
    [("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Upgrade", "foo"), ("Upgrade", "websocket")],
    [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c,websocket"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")],
], ids=str)
def test_it_may_be_asked_for_in_many_ways(balancer, backend, headers):
    there = backend(switch_and_echo)
    with ask(balancer(there).port, headers) as client:
        assert round_trip(client)
    request = there.requests[0]
    assert (request.field("Connection").lower(), request.field("Upgrade").lower()) == ("upgrade", "websocket")
    assert request.field("HTTP2-Settings") is None


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.0\r\nHost: x\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade:\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websockets, web socket, \"websocket\"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
], ids=lambda data: " ".join(data.decode().split("\r\n")[:1] + data.decode().split("\r\n")[2:])[:90])
def test_all_else_is_an_ordinary_request(balancer, backend, data):
    there = backend(lambda c, r: c.send(reply() if r.method != "HEAD" else reply()[:-2]))
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(data)
        assert client.response(data.split()[0].decode()).status == 200
        assert client.get("/after").status == 200
    assert [request.target for request in there.requests] == [data.split()[1].decode(), "/after"]
    request = there.requests[0]
    assert request.field("Upgrade") is None and request.field("HTTP2-Settings") is None
    assert "upgrade" not in (request.field("Connection") or "").lower()
    assert request.body == (b"abc" if b"abc" in data else b"")


def test_a_pool_says_which_protocols(lifetimes, balancer, backend):
    """upgrade: a list; `off`: none."""
    there = backend(lambda c, r: c.send(reply(r.field("Upgrade") or "none")))
    wanted = [("Connection", "Upgrade"), ("Upgrade", "WebSocket, foo, bar/2")]
    answers = {}
    for setting in (["websocket"], ["foo"], ["BAR/2", "foo"], "off", ["other"]):
        answers[str(setting)] = get(balancer(there, pool={"upgrade": setting}).port, "/", wanted).text.lower()
    assert answers == {"['websocket']": "websocket", "['foo']": "foo", "['BAR/2', 'foo']": "foo", "off": "none",
                       "['other']": "none"}


def test_another_protocol_can_be_allowed(balancer, backend):
    def answer(connection, request):
        connection.send(SWITCHES.replace(b"websocket", b"postgres"))
        connection.send(connection.exactly(4))
    lb = balancer(backend(answer), pool={"upgrade": ["websocket", "postgres"]})
    with ask(lb.port, [("Connection", "upgrade"), ("Upgrade", "postgres")]) as client:
        assert round_trip(client)


@pytest.mark.parametrize("token", ["h2c", "H2C"])
def test_h2c_is_refused_by_the_configuration(tmp_path, token):
    file = tmp_path / "vb.yaml"
    file.write_text(f"listen: 127.0.0.1:8080\npools:\n  web:\n    backends: [127.0.0.1:9]\n"
                    f"    upgrade: [websocket, {token}]\n")
    result = run("vibebalancer", "-c", file, "--check")
    assert result.returncode == 2 and f"{file}:5:26: " in result.stderr and "h2c" in result.stderr.lower()


# ---- a backend that does not agree -----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer, status, body", [
    (reply("plain"), 200, b"plain"),
    (reply("who are you?", "403 Forbidden"), 403, b"who are you?"),
    (reply("", "426 Upgrade Required", [("Upgrade", "foo")]), 426, b""),
    (reply("", "204 No Content", length=False), 204, b""),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc"),
], ids=["200", "403", "426", "204", "chunked"])
def test_another_answer_is_an_ordinary_response(balancer, backend, answer, status, body):
    there = backend([answer, reply("next")])
    lb = balancer(there)
    with Client(lb.port) as client:
        response = client.request("GET", "/", ASKS)
        assert (response.status, response.body) == (status, body) and not response.closes
        assert client.get("/next").text == "next"
    assert len(there.connections) == 1, "the backend's connection could have been kept"


def test_what_is_pipelined_behind_a_refused_upgrade_is_the_next_request(balancer, backend):
    """And not one byte of it is sent before the answer to the first is known."""
    there = backend(lambda c, r: (c.backend.released.wait(10) if r.target == "/1" else None, c.send(reply(r.target))))
    lb = balancer(there)
    asks = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    with Client(lb.port) as client:
        client.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n" + asks + b"\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
                    b"GET /3 HTTP/1.1\r\nHost: x\r\n" + asks + b"\r\n")
        there.wait_requests(1)
        assert get(lb.port, "/other").status == 200  # time for the worker to do something wrong
        assert b"/2" not in there.received
        there.released.set()
        assert [client.response().text for _ in range(3)] == ["/1", "/2", "/3"]


@pytest.mark.parametrize("headers, head", [
    ((), SWITCHES),
    ([("Connection", "Upgrade"), ("Upgrade", "foo")], SWITCHES.replace(b"websocket", b"foo")),
    ([("Connection", "Upgrade"), ("Upgrade", "h2c")], SWITCHES.replace(b"websocket", b"h2c")),
    (ASKS, SWITCHES.replace(b"websocket", b"foo")),
    (ASKS, SWITCHES.replace(b"websocket", b"h2c")),
    (ASKS, SWITCHES.replace(b"Upgrade: websocket\r\n", b"")),
    (ASKS, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
], ids=["unasked", "one that is not allowed", "h2c", "to another", "to h2c", "to nothing", "without a field"])
def test_101_that_was_not_asked_for_is_an_error(balancer, backend, headers, head):
    """RFC 9110 15.2.2: what follows it is no HTTP, so nothing of it may reach the client as such."""
    there = backend([head + reply("poison"), reply("fine")])
    lb = balancer(there)
    with Client(lb.port) as client:
        response = client.request("GET", "/", headers)
        assert response.status == 502 and b"poison" not in response.body
        assert client.get().text == "fine"
    assert len(there.connections) == 2, "the connection of the 101 was used again"
    lb.wait_idle()
    assert lb.backend(there)["errors"] == 1 and lb.total("tunnels") == 0


@pytest.mark.parametrize("data", [
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
])
def test_101_to_a_request_that_could_not_be_upgraded(balancer, backend, data):
    lb = balancer(backend(SWITCHES + b"poison"))
    with Client(lb.port) as client:
        client.send(data)
        response = client.response()
        assert response.status == 502 and b"poison" not in response.body + client._buffer


def test_an_upgrade_that_nobody_answers(balancer, backend):
    lb = balancer(backend(lambda c, r: c.hang()), pool={"timeouts": {"response": "300ms"}})
    assert get(lb.port, "/", ASKS).status == 504


def test_a_client_that_goes_before_the_answer(balancer, backend):
    there = backend(lambda c, r: c.hang())
    lb = balancer(there)
    with Client(lb.port) as client:
        client.start("GET", "/", ASKS)
        there.wait_requests(1)
        client.reset()
    eventually(lambda: not there.connections[0].is_open, "the backend's connection is closed")
    all_over(lb)


def test_no_backend_no_upgrade(balancer, backend):
    there = backend()
    lb = balancer(there)
    there.stop()
    with Client(lb.port) as client:
        assert client.request("GET", "/", ASKS).status == 502
        assert client.get().status == 502


# ---- which connection to the backend ---------------------------------------------------------------------------------


def test_a_kept_connection_can_be_upgraded_and_is_not_kept_after_it(balancer, backend):
    there = backend(switch_if_asked)
    lb = balancer(there)
    assert get(lb.port).status == 200
    with ask(lb.port) as client:
        assert len(there.connections) == 1, "the kept connection was there"
        assert get(lb.port).status == 200
        there.connections[0].send(b"hello")
        assert client.exactly(5) == b"hello"
    eventually(lambda: not there.connections[0].is_open or there.connections[0].socket.recv(1) == b"", "it ends")
    there.released.set()
    all_over(lb)
    assert get(lb.port).status == 200
    assert len(there.connections) == 2


def test_a_kept_connection_that_closes_as_it_is_used_is_no_error(balancer, backend):
    def answer(connection, request):
        if connection.received.count(b" HTTP/1.1\r\n") > 1:
            connection.close()
        switch_if_asked(connection, request)
    there = backend(answer)
    lb = balancer(there)
    assert get(lb.port).status == 200
    with ask(lb.port) as client:
        there.connections[-1].send(b"hello")
        assert client.exactly(5) == b"hello"
    assert lb.backend(there)["errors"] == 0 and lb.backend(there)["retries"] == 1


def test_interim_responses_may_come_before_the_switch(balancer, backend):
    there = backend(lambda c, r: (c.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), switch(c, r)))
    with Client(balancer(there).port) as client:
        client.start("GET", "/", ASKS)
        assert [client.head().status, client.head().status] == [103, 101]
        there.connections[0].send(b"hello")
        assert client.exactly(5) == b"hello"


def test_the_last_request_that_a_connection_may_carry_can_be_an_upgrade(balancer, backend):
    lb = balancer(backend(switch_and_echo), config={"limits": {"requests_per_connection": 2}})
    with Client(lb.port) as client:
        assert client.get().text == "no"
        client.start("GET", "/", ASKS)
        response = client.head()
        assert response.status == 101 and response.field("Connection").lower() == "upgrade"
        assert round_trip(client)


# ---- bytes that are there early --------------------------------------------------------------------------------------


def test_what_the_client_sends_before_the_switch_arrives_after_it(balancer, backend, workers):
    switching = threading.Event()

    def answer(connection, request):
        switching.wait(10)
        connection.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):  # not before we have agreed
            connection.socket.recv(1)
        connection.socket.settimeout(TIMEOUT)
        assert connection._buffer == b""
        connection.send(SWITCHES)
        connection.send(connection.exactly(11))
    there = backend(answer)
    lb = balancer(there, workers=workers)
    with Client(lb.port) as client:
        head = "\r\n".join(["GET / HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in ASKS), "", ""])
        client.send(head.encode() + b"early")
        there.wait_requests(1)
        client.send(b"-later")
        switching.set()
        assert client.head().status == 101
        assert client.exactly(11) == b"early-later"


def test_much_that_the_client_sends_before_the_switch(balancer, backend):
    """It waits, in bounded memory, and arrives whole."""
    data = random.randbytes(30_000_000)
    switching, digests = threading.Event(), []

    def answer(connection, request):
        switching.wait(30)
        connection.send(SWITCHES)
        digests.append(zlib.crc32(connection.exactly(len(data))))
        connection.send(b"done")
    there = backend(answer, record=False)
    lb = balancer(there, env=MEASURABLE)
    get_memory = lambda: memory_kib(lb.worker_pids()[0])  # noqa: E731
    with Client(lb.port) as client:
        client.start("GET", "/", ASKS)
        there.wait_requests(1)
        before = get_memory()
        sender = threading.Thread(target=client.send, args=(data,), daemon=True)
        sender.start()
        wait_until_stuck(client.socket, lambda: get_memory() - before < MEMORY_KIB)
        assert sender.is_alive(), "the kernel took it all: that shows nothing"
        switching.set()
        assert client.head().status == 101
        assert client.exactly(4) == b"done"
        sender.join(TIMEOUT)
    assert digests == [zlib.crc32(data)]


def test_a_client_that_has_said_all_before_the_switch(balancer, backend):
    there = backend(lambda c, r: (c.backend.released.wait(10), c.send(SWITCHES), c.send(b"got " + c.rest()), c.close()))
    lb = balancer(there)
    with Client(lb.port) as client:
        client.start("GET", "/", ASKS)
        client.send(b"everything")
        client.half_close()
        there.wait_requests(1)
        there.released.set()
        assert client.head().status == 101
        assert client.rest() == b"got everything"
    all_over(lb)


@pytest.mark.parametrize("behind", [b"hello", random.Random(1).randbytes(3_000_000)], ids=["little", "much"])
def test_what_the_backend_sends_right_behind_its_101(balancer, backend, behind):
    lb = balancer(backend(lambda c, r: (c.send(SWITCHES + behind), c.send(c.exactly(4)))))
    with ask(lb.port) as client:
        assert client.exactly(len(behind)) == behind
        assert round_trip(client)


def test_a_101_in_small_pieces(balancer, backend):
    lb = balancer(backend(lambda c, r: (c.send_slowly(SWITCHES + b"hello"), c.send(c.exactly(4)))))
    with ask(lb.port) as client:
        assert client.exactly(5) == b"hello"
        assert round_trip(client)


def test_a_101_has_no_body_whatever_it_says(balancer, backend):
    """RFC 9112 6.3: what follows is the new protocol, and no field says how much of it."""
    for field in (b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"):
        lb = balancer(backend(lambda c, r, field=field: (
            c.send(SWITCHES[:-2] + field + b"\r\nhello"), c.send(c.exactly(4)), c.close())))
        with Client(lb.port) as client:
            client.start("GET", "/", ASKS)
            response = client.head()
            assert response.status in (101, 502)  # it may also be taken for nonsense
            if response.status == 101:
                assert response.field("Content-Length") is None and response.field("Transfer-Encoding") is None
                assert client.exactly(5) == b"hello"
                assert round_trip(client)


def test_a_client_that_wants_to_close_can_upgrade(balancer, backend):
    lb = balancer(backend(switch_and_echo))
    with ask(lb.port, [("Connection", "close, Upgrade"), *ASKS[1:]]) as client:
        assert round_trip(client)


def test_a_backend_that_has_said_all_with_its_101(balancer, backend):
    lb = balancer(backend(lambda c, r: (c.send(SWITCHES + b"bye"), c.close())))
    with ask(lb.port) as client:
        assert client.rest() == b"bye"
    all_over(lb)


def test_a_101_in_pieces_with_bytes_of_the_tunnel_behind_it(balancer, backend):
    """The head is joined from two reads; what follows it in the second one must still be there when it is passed on."""
    def in_pieces(connection, request):
        with Diag() as diag:
            diag.send_apart(connection.socket, SWITCHES[:20], 20)
        connection.send(SWITCHES[20:] + b"first" * 2000)
        assert connection.exactly(5) == b"hello"
        connection.send(b"last")
        connection.close()
    there = backend(in_pieces)
    with ask(balancer(there).port) as client:
        client.send(b"hello")
        assert client.rest() == b"first" * 2000 + b"last"


def test_426_names_the_protocol_that_is_wanted(balancer, backend):
    """RFC 9110 15.5.22: MUST send Upgrade."""
    answer = (b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
              b"Content-Length: 0\r\n\r\n")
    with Client(balancer(backend(answer)).port) as client:
        for _ in range(2):
            response = client.get()
            assert response.status == 426 and response.field("Upgrade").lower() == "websocket"
            assert response.field("Connection") == "Upgrade" and not response.closes
