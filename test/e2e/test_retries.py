"""What is tried again, where, and what never is: seen from both ends (RFC 9110 9.2.2, the key `retry`).

How often, how long, and what ends a wait: test_retries_bounds.py.
"""
import pytest
from harness import (Client, Truncated, Turns, at_once, close, deaf_address, eventually, free_port, get, post, reply,
                     reset)

BUFFER = 65536  # retry.buffer, if nothing else is configured
IDEMPOTENT = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]
NOT_IDEMPOTENT = ["POST", "PATCH", "FROBNICATE"]
ONE_AND_FOUR = pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")
BODY = bytes(range(256)) * 40  # 10 KiB


def pair(backend, *answers, n=2, **options):
    """n backends that answer in turn with these, whichever is asked."""
    answer = Turns(*answers)
    return [backend(answer, **options) for _ in range(n)]


def seen(backends):
    """How many requests came to each, the most first."""
    return sorted((len(there.requests) for there in backends), reverse=True)


def ask(lb, method, target="/", headers=(), body=None):
    with Client(lb.port) as client:
        return client.request(method, target, headers, body)


def chunked(*parts, trailers=b""):
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


# ---- no connection: anything is tried elsewhere ----------------------------------------------------------------------


@ONE_AND_FOUR
@pytest.mark.parametrize("method, body", [("GET", None), ("POST", None), ("POST", BODY), ("PATCH", b"x"),
                                          ("POST", b"y" * BUFFER)],
                         ids=["GET", "POST", "POST 10 KiB", "PATCH", "POST 64 KiB"])
def test_a_refused_connection(balancer, backend, workers, method, body):
    there, gone = backend(), f"127.0.0.1:{free_port()}"
    lb = balancer([there, gone], workers=workers)
    for _ in range(4):
        assert ask(lb, method, body=body).status == 200
    assert [request.body for request in there.requests] == [body or b""] * 4
    row = lb.backend(gone)
    assert row["errors"] == row["retries"] == row["requests"] > 0 and row["stale"] == 0
    assert lb.total("failed") == 0
    lb.wait_idle()


def test_a_refused_connection_and_a_chunked_body(balancer, backend):
    there, gone = backend(), f"127.0.0.1:{free_port()}"
    lb = balancer([there, gone])
    for _ in range(4):
        with Client(lb.port) as client:
            client.start("POST", "/", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
            client.send(chunked(BODY, b"more", trailers=b"X-Sum: 1\r\n"))
            assert client.response().status == 200
    assert {(request.body, request.trailers) for request in there.requests} == {(BODY + b"more", b"X-Sum: 1\r\n")}
    assert lb.backend(gone)["retries"] > 0


@pytest.mark.parametrize("size", [BUFFER + 1, 100 * 1024, 5_000_000])
def test_a_refused_connection_and_a_body_that_is_too_large_to_be_kept(balancer, backend, size):
    """It depends on how much has come by then; but what arrives is whole, and 200 is only said of what has arrived."""
    there, gone = backend(), f"127.0.0.1:{free_port()}"
    lb = balancer([there, gone], pool={"outlier": "off"})
    body = bytes(range(251)) * (size // 251 + 1)
    statuses = [ask(lb, "POST", body=body[:size]).status for _ in range(4)]
    assert set(statuses) <= {200, 502} and 200 in statuses
    assert [request.body == body[:size] for request in there.requests] == [True] * statuses.count(200)
    assert there.received.count(b"POST / HTTP/1.1") == statuses.count(200), "the backend saw a part of one"
    lb.wait_idle()


def test_a_refused_connection_and_100_continue(balancer, backend):
    """The body is not even asked for before there is somebody who wants it."""
    def answer(connection, request):
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body(request)
        connection.send(reply(request.body))
    there, gone = backend(answer, early=True), f"127.0.0.1:{free_port()}"
    lb = balancer([there, gone])
    for _ in range(4):
        with Client(lb.port) as client:
            client.start("POST", "/", [("Expect", "100-continue"), ("Content-Length", len(BODY))])
            assert client.head().status == 100
            client.send(BODY)
            response = client.head()
            assert response.status == 200, "one interim response is all there is"
            client.body(response)
            assert response.body == BODY
    assert lb.backend(gone)["retries"] > 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_takes_too_long(balancer, backend, method):
    there = backend()
    with deaf_address() as deaf:
        lb = balancer([there, deaf], pool={"timeouts": {"connect": "150ms"}})
        for _ in range(2):
            assert ask(lb, method, body=b"x").status == 200
        row = lb.backend(deaf)
        assert row["errors"] == row["timeouts"] == row["retries"] == row["requests"] > 0


# ---- after it was sent: only what may happen twice -------------------------------------------------------------------


@ONE_AND_FOUR
@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("failure", [reset, close], ids=["reset", "closed"])
def test_an_idempotent_request_is_sent_to_another_backend(balancer, backend, workers, method, failure):
    both = pair(backend, failure, reply("fine"))
    lb = balancer(both, workers=workers)
    response = ask(lb, method)
    assert response.status == 200 and response.text == ("" if method == "HEAD" else "fine")
    assert seen(both) == [1, 1]
    assert both[0].received == both[1].received, "the same bytes, with the same request id"
    lb.wait_idle()
    rows = [lb.backend(there) for there in both]
    assert sorted((row["errors"], row["retries"], row["responses_2xx"]) for row in rows) == [(0, 0, 1), (1, 1, 0)]
    assert lb.total("failed") == 0


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", reply()[:20], b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"],
                         ids=["garbage", "half a head", "a forbidden head"])
def test_an_answer_that_is_none(balancer, backend, answer):
    both = pair(backend, lambda c, r: (c.send(answer), c.close()), reply("fine"))
    lb = balancer(both)
    assert get(lb.port).text == "fine"
    assert seen(both) == [1, 1]


@ONE_AND_FOUR
@pytest.mark.parametrize("method", NOT_IDEMPOTENT)
@pytest.mark.parametrize("body", [None, b"x", BODY], ids=["no body", "1 byte", "10 KiB"])
def test_what_may_have_happened_is_not_sent_twice(balancer, backend, workers, method, body):
    both = pair(backend, reset, reply("fine"))
    lb = balancer(both, workers=workers)
    assert ask(lb, method, body=body).status == 502
    lb.wait_idle()
    assert seen(both) == [1, 0]
    assert sum(lb.backend(there)["retries"] for there in both) == 0
    assert lb.total("failed") == 1


def test_a_post_that_was_read_in_part_is_not_sent_twice(balancer, backend):
    def answer(connection, request):
        connection.exactly(10)
        connection.reset()
    both = pair(backend, answer, reply("fine"), early=True)
    lb = balancer(both)
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", 20)])
        client.send(b"x" * 10)
        assert client.response().status == 502
    assert seen(both) == [1, 0]


# ---- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10 * 1024, BUFFER])
def test_a_body_is_sent_again_as_it_was(balancer, backend, size):
    both = pair(backend, reset, reply("fine"))
    lb = balancer(both)
    body = (BODY * 7)[:size]
    assert ask(lb, "PUT", body=body).text == "fine"
    assert seen(both) == [1, 1]
    assert [there.requests[0].body == body for there in both] == [True, True]
    assert both[0].received == both[1].received


def test_a_chunked_body_is_sent_again_as_it_was(balancer, backend):
    both = pair(backend, reset, reply("fine"))
    lb = balancer(both)
    with Client(lb.port) as client:
        client.start("PUT", "/", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
        client.send(chunked(BODY, b"x", BODY, trailers=b"X-Sum: 1\r\n"))
        assert client.response().text == "fine"
    for there in both:
        request, = there.requests
        assert request.body == BODY + b"x" + BODY and request.trailers == b"X-Sum: 1\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_whose_rest_comes_after_the_failure(balancer, backend, framing):
    """The second backend gets the first half from memory and the second half from the client."""
    half, broken = BODY[:5000], []

    def cut(connection, request):
        connection.exactly(5000)
        broken.append(connection)
        connection.reset()

    def take(connection, request):
        connection.read_body(request)
        connection.send(reply("fine"))
    both = pair(backend, cut, take, early=True)
    lb = balancer(both)
    with Client(lb.port) as client:
        if framing == "length":
            client.start("PUT", "/", [("Content-Length", len(BODY))])
            first, second = half, BODY[5000:]
        else:
            client.start("PUT", "/", [("Transfer-Encoding", "chunked")])
            first, second = b"1388\r\n" + half + b"\r\n", chunked(BODY[5000:])
        client.send(first)
        eventually(lambda: seen(both) == [1, 1], "the second backend has got the head")
        client.send(second)
        assert client.response().text == "fine"
    whole, = [there.requests[0] for there in both if there.connections[0] not in broken]
    assert whole.body == BODY


@pytest.mark.parametrize("size, pool", [(BUFFER + 1, {}), (1_000_000, {}), (1025, {"retry": {"buffer": "1KiB"}})],
                         ids=["64 KiB + 1", "1 MB", "1 KiB + 1"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_is_too_large_to_be_kept(balancer, backend, size, pool, framing):
    both = pair(backend, reset, reply("fine"))
    lb = balancer(both, pool=pool)
    with Client(lb.port) as client:
        if framing == "length":
            client.start("PUT", "/", body=b"x" * size)
        else:
            client.start("PUT", "/", [("Transfer-Encoding", "chunked")])
            client.send(chunked(b"x" * size))
        assert client.response().status == 502
    assert seen(both) == [1, 0]


# ---- after the response has begun ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [reply("x" * 1000)[:500], reply("x" * 1000, length=False)[:-900],
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"],
                         ids=["length", "until the end", "chunked"])
def test_a_response_that_has_begun_is_not_begun_anew(balancer, backend, sent):
    both = pair(backend, lambda c, r: (c.send(sent), eventually(lambda: c.backend.released.is_set(), "now"), c.reset()),
                reply("fine"))
    lb = balancer(both)
    with Client(lb.port) as client:
        client.start("GET", "/")
        response = client.head()  # it is on its way
        for there in both:
            there.released.set()
        with pytest.raises((Truncated, ConnectionError)):
            client.body(response)
            client.rest()
            raise AssertionError("it looks complete")
    assert seen(both) == [1, 0]
    lb.wait_idle()
    assert lb.total("failed") == 1


def test_after_an_interim_response_nothing_is_tried_again(balancer, backend):
    """The client has heard from one backend; another one may see things otherwise."""
    def answer(connection, request):
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        connection.backend.released.wait(10)
        connection.reset()
    both = pair(backend, answer, reply("fine"))
    lb = balancer(both)
    with Client(lb.port) as client:
        client.start("GET", "/")
        assert client.head().status == 103
        for there in both:
            there.released.set()
        assert client.response().status == 502
    assert seen(both) == [1, 0]


# ---- where, and how often --------------------------------------------------------------------------------------------


@ONE_AND_FOUR
@pytest.mark.parametrize("n, pool, expected", [(3, {}, [1, 1, 1]), (5, {}, [1, 1, 1, 0, 0]), (2, {}, [1, 1]),
                                               (1, {}, [1]),
                                               (3, {"retry": {"attempts": 1}}, [1, 1, 0]),
                                               (3, {"retry": {"attempts": 0}}, [1, 0, 0]),
                                               (6, {"retry": {"attempts": 5}}, [1, 1, 1, 1, 1, 1]),
                                               (3, {"retry": "off"}, [1, 0, 0]),
                                               (3, {"balance": "least_conn"}, [1, 1, 1])],
                         ids=["3", "5", "2", "1", "attempts 1", "attempts 0", "attempts 5", "off", "least_conn"])
def test_each_try_is_made_at_another_backend(balancer, backend, workers, n, pool, expected):
    backends = pair(backend, reset, n=n)
    lb = balancer(backends, workers=workers, pool=pool)
    assert get(lb.port).status == 502
    assert seen(backends) == expected
    lb.wait_idle()
    assert sum(lb.backend(there)["retries"] for there in backends) == sum(expected) - 1
    assert sum(lb.backend(there)["errors"] for there in backends) == sum(expected)
    assert lb.total("failed") == 1


@pytest.mark.parametrize("on, refused, was_reset", [("[connect]", 200, 502), ("[reset]", 502, 200),
                                                    ("[timeout]", 502, 502)])
def test_only_what_is_listed_is_tried_again(balancer, backend, on, refused, was_reset):
    pool = {"retry": {"on": on.strip("[]").split(", ")}, "outlier": "off"}
    lb = balancer([backend(), f"127.0.0.1:{free_port()}"], pool=pool)
    assert sorted(get(lb.port).status for _ in range(4)) in ([200] * 4, [200, 200, 502, 502])
    statuses = {get(lb.port).status for _ in range(4)}
    assert statuses == {200, refused}
    both = pair(backend, reset, reply("fine"))
    assert get(balancer(both, pool=pool).port).status == was_reset


# ---- statuses --------------------------------------------------------------------------------------------------------


def says(status, body):
    return reply(body, f"{status} Status", headers=[("X-From", body[:100])])


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_a_listed_status_is_tried_elsewhere(balancer, backend, status):
    pool = {"retry": {"on": ["connect", "reset", "timeout", status]}}
    both = pair(backend, says(status, "no"), reply("fine"))
    lb = balancer(both, pool=pool)
    assert get(lb.port).text == "fine"
    assert seen(both) == [1, 1]
    lb.wait_idle()
    assert sum(lb.backend(there)["retries"] for there in both) == 1
    assert sum(lb.backend(there)["errors"] for there in both) == 0


@pytest.mark.parametrize("status", [502, 503, 504, 429, 500])
def test_a_status_that_is_not_listed_is_an_answer(balancer, backend, status):
    both = pair(backend, says(status, "no"), reply("fine"))
    lb = balancer(both)
    assert (response := get(lb.port)).status == status and response.text == "no"
    assert seen(both) == [1, 0]
    assert lb.total("failed") == 0


def test_a_listed_status_of_a_post_is_its_answer(balancer, backend):
    both = pair(backend, says(503, "no"), reply("fine"))
    lb = balancer(both, pool={"retry": {"on": [503]}})
    assert (response := post(lb.port, "/", b"x")).status == 503 and response.text == "no"
    assert seen(both) == [1, 0]


@pytest.mark.parametrize("last", [says(503, "third"), b"HTTP/1.1 503 No\r\nX-From: third\r\nTransfer-Encoding: chunked"
                                  b"\r\n\r\n5\r\nthird\r\n0\r\n\r\n"], ids=["length", "chunked"])
def test_the_last_answer_is_the_answer(balancer, backend, last):
    backends = pair(backend, says(503, "first"), says(503, "second"), last, n=3)
    lb = balancer(backends, pool={"retry": {"on": [503]}})
    response = get(lb.port)
    assert (response.status, response.field("X-From"), response.text) == (503, "third", "third")
    assert seen(backends) == [1, 1, 1]
    assert lb.total("failed") == 0, "it has been answered"
    lb.wait_idle()


def test_an_answer_that_nobody_gets_may_be_long(balancer, backend):
    """Its connection is given up, not read to its end; the next request is not mixed up with it."""
    both = pair(backend, reply("x" * 3_000_000, "503 No"), reply("fine"), reply("next"))
    lb = balancer(both, pool={"retry": {"on": [503]}})
    with Client(lb.port) as client:
        assert client.get().text == "fine"
        assert [client.get().text for _ in range(3)] == ["next"] * 3
    lb.wait_idle()


# ---- kept connections that had ended ---------------------------------------------------------------------------------


def ends_when_kept(connection, request):
    """Answers the first request of each connection; the second one finds it closed."""
    if getattr(connection, "used", False):
        connection.close()
    connection.used = True
    connection.send(reply("" if request.method == "HEAD" else "fine"))


@pytest.mark.parametrize("n", [1, 2], ids=["one backend", "two backends"])
@pytest.mark.parametrize("method, body", [("GET", None), ("HEAD", None), ("DELETE", None), ("PUT", BODY)],
                         ids=["GET", "HEAD", "DELETE", "PUT"])
def test_a_stale_connection(balancer, backend, n, method, body):
    """It is sent once more, to the same backend: that one did nothing wrong."""
    backends = [backend(ends_when_kept) for _ in range(n)]
    lb = balancer(backends)
    for _ in range(2 * n):
        assert ask(lb, method, body=body).status == 200
    lb.wait_idle()
    for there in backends:
        assert len(there.connections) == 2 and len(there.requests) == 3
        assert there.requests[1].head == there.requests[2].head and there.requests[2].body == (body or b"")
        row = lb.backend(there)
        assert (row["requests"], row["errors"], row["retries"], row["stale"]) == (2, 0, 1, 1)
    assert lb.total("failed") == 0


def test_a_stale_connection_without_retries(balancer, backend):
    """`off` is about other backends; that the end of a connection crossed the request is none of them."""
    there = backend(ends_when_kept)
    lb = balancer(there, pool={"retry": "off"})
    assert [get(lb.port).status for _ in range(2)] == [200, 200]
    assert lb.backend(there)["stale"] == 1


def test_a_stale_connection_and_a_post(balancer, backend):
    there = backend(ends_when_kept)
    lb = balancer(there)
    assert [post(lb.port, "/", b"x").status for _ in range(2)] == [200, 502]
    assert len(there.requests) == 2


def test_a_fresh_connection_is_not_stale(balancer, backend):
    """Of one backend: the second end is a failure."""
    there = backend([reply("fine"), close, close, reply("late")])
    lb = balancer(there)
    assert [get(lb.port).status for _ in range(2)] == [200, 502]
    assert len(there.requests) == 3
    row = lb.backend(there)
    assert (row["errors"], row["retries"], row["stale"]) == (1, 1, 1)


# ---- the client's side -----------------------------------------------------------------------------------------------


def test_what_is_pipelined_behind_waits(balancer, backend):
    def answer(connection, request):
        if request.target == "/a" and not failed:
            failed.append(connection)
            connection.reset()
        connection.send(reply(request.target))
    failed = []
    backends = [backend(answer) for _ in range(2)]
    lb = balancer(backends)
    with Client(lb.port) as client:
        client.send(b"".join(b"GET /%c HTTP/1.1\r\nHost: x\r\n\r\n" % name for name in b"abc"))
        assert [client.response().text for _ in range(3)] == ["/a", "/b", "/c"]
    assert sum(seen(backends)) == 4


def test_a_client_that_leaves_between_two_tries(balancer, backend):
    """It leaves when the second backend has the request: nothing of it stays, and no third one is asked."""
    backends = pair(backend, reset, lambda c, r: (c.hang(), c.close()), n=3)
    lb = balancer(backends)
    for body in (None, BODY):
        before = sum(seen(backends))
        client = Client(lb.port)
        client.start("PUT", "/", body=body)
        eventually(lambda: sum(seen(backends)) > before, "a backend has it")
        eventually(lambda: sum(row["in_flight"] for row in lb.vbctl("backends")["backends"]) == 1, "it waits")
        client.reset()
        lb.wait_idle()
    assert sum(seen(backends)) == 3
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "the client is gone")


def test_many_at_a_time(balancer, backend):
    """Each request fails once: everybody gets his own answer."""
    first = set()

    def answer(connection, request):
        if request.target not in first:
            first.add(request.target)
            connection.reset()
        connection.send(reply(request.target + request.body.decode()))
    lb = balancer([backend(answer) for _ in range(3)], workers=4, pool={"outlier": "off", "retry": {"budget": "100%"}})

    def work(i):
        with Client(lb.port) as client:
            return [client.request("PUT", f"/{i}.{n}", body=f" {i}.{n}".encode() * 100).text == f"/{i}.{n}" +
                    f" {i}.{n}" * 100 for n in range(30)]
    assert at_once(8, work) == [[True] * 30] * 8
    lb.wait_idle()
