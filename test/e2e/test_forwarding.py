"""What arrives at either end: heads pass as they came, except for what a proxy must change (RFC 9110 7.6, 9112)."""
import re

import pytest
from harness import Client, exchange, get, post, reply

ADDED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-request-id"}


def without_added(headers):
    return [(name, value) for name, value in headers if name.lower() not in ADDED]


@pytest.fixture
def pair(balancer, backend):
    """pair(answer, ...) -> (balancer, its one backend)"""
    def do(answer=None, **options):
        there = backend(answer)
        return balancer(there, **options), there
    return do


# ---- requests --------------------------------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_sent(pair):
    lb, there = pair()
    exchange(lb.port, b"GET /a/b%20c;d?x=1&y=%2F&&z HTTP/1.1\r\n"
             b"Host: Example.COM:8080\r\nx-TWO: a,b\r\nCookie: a=b; c=d\r\nX-One: first\r\nX-One: second\r\n"
             b"X-Empty:\r\nX-Latin: \xe4\xf6\r\nX-Spaces: in  between\r\nConnection: close\r\n\r\n")
    request = there.requests[0]
    assert request.line == "GET /a/b%20c;d?x=1&y=%2F&&z HTTP/1.1"
    headers = [header for header in without_added(request.headers) if header[0] != "Connection"]
    assert headers == [("Host", "Example.COM:8080"), ("x-TWO", "a,b"), ("Cookie", "a=b; c=d"), ("X-One", "first"),
                       ("X-One", "second"), ("X-Empty", ""), ("X-Latin", "\xe4\xf6"), ("X-Spaces", "in  between")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "PURGE",
                                    "FOOBAR", "get", "M-SEARCH", "X!#$%&'*+-.^_`|~1"])
def test_every_method_is_forwarded(pair, method):
    lb, there = pair()
    with Client(lb.port) as client:
        assert client.request(method, "/").status == 200
        assert client.get("/after").status == 200
    assert [request.line for request in there.requests] == [f"{method} / HTTP/1.1", "GET /after HTTP/1.1"]


def test_hop_by_hop_fields_stay_on_their_hop(pair):
    lb, there = pair()
    with Client(lb.port) as client:
        client.get("/", [("Connection", "keep-alive, X-Secret"), ("Connection", "FOO"), ("X-Secret", "1"), ("foo", "2"),
                         ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("TE", "gzip, trailers"),
                         ("Upgrade", "websocket, h2c"), ("X-Stays", "3")])
    request = there.requests[0]
    names = {name.lower() for name, _ in request.headers}
    assert "x-stays" in names
    assert names & {"x-secret", "foo", "keep-alive", "proxy-connection", "upgrade"} == set()
    assert request.field("TE") in (None, "trailers")
    for value in request.fields("Connection"):
        assert {token.strip().lower() for token in value.split(",")} <= {"keep-alive", "close", "te"}


def test_fields_that_the_proxy_adds_cannot_be_removed_by_the_client(pair):
    """The Connection field must not take away what we add: CVE-2024-45410, CVE-2022-31813."""
    lb, there = pair()
    exchange(lb.port, b"GET / HTTP/1.1\r\nHost: x\r\n"
             b"Connection: close, X-Forwarded-For, X-Forwarded-Host, X-Request-ID, Via\r\n\r\n")
    request = there.requests[0]
    assert request.field("X-Forwarded-For") == "127.0.0.1" and request.field("X-Forwarded-Host") == "x"
    assert request.field("Via") and request.field("X-Request-ID")


def test_the_backend_learns_who_asked(pair):
    lb, there = pair()
    with Client(lb.port) as client:
        client.get("/")
        request = there.requests[0]
        assert request.field("X-Forwarded-For") == "127.0.0.1"
        assert request.field("X-Forwarded-Proto") == "http"
        assert request.field("X-Forwarded-Host") == client.host == request.field("Host")


def test_a_client_cannot_pretend_to_be_another(pair):
    lb, there = pair()
    get(lb.port, "/", [("X-Forwarded-For", "10.1.1.1"), ("x-forwarded-for", "10.2.2.2"), ("X-Forwarded-Proto", "https"),
                       ("X-Forwarded-Host", "bank.example"), ("Forwarded", "for=10.3.3.3")])
    request = there.requests[0]
    assert request.field("X-Forwarded-For") == "127.0.0.1" and request.field("X-Forwarded-Proto") == "http"
    assert request.field("X-Forwarded-Host") == request.field("Host")
    assert request.field("Forwarded") is None


def test_via_is_appended_on_both_ways(pair):
    """RFC 9110 7.6.3"""
    lb, there = pair(reply(headers=[("Via", "1.0 inner")]))
    response = get(lb.port, "/", [("Via", "1.1 outer")])
    seen = ", ".join(there.requests[0].fields("Via"))
    assert re.fullmatch(r"1\.1 outer, 1\.1 [!#$%&'*+.^_`|~0-9A-Za-z:-]+", seen)
    assert re.fullmatch(r"1\.0 inner, 1\.1 [!#$%&'*+.^_`|~0-9A-Za-z:-]+", ", ".join(response.fields("Via")))


def test_each_request_gets_an_id_that_the_client_sees_too(pair):
    lb, there = pair(workers=2)
    answered = [get(lb.port).field("X-Request-ID") for _ in range(20)]
    assert [request.field("X-Request-ID") for request in there.requests] == answered
    assert len(set(answered)) == 20 and all(re.fullmatch(r"[0-9a-f]{32}", ident) for ident in answered)
    assert set("".join(answered)) == set("0123456789abcdef")


def test_an_id_that_the_client_brings_is_kept(pair):
    lb, there = pair()
    assert get(lb.port, "/", [("x-request-id", "abc-123")]).field("X-Request-ID") == "abc-123"
    assert there.requests[0].field("X-Request-ID") == "abc-123"


def test_additions_can_be_turned_off(pair):
    lb, there = pair(config={"headers": {"forwarded": "off", "request_id": "off", "via": False}})
    spoken = [("X-Forwarded-For", "10.1.1.1"), ("Forwarded", "for=10.3.3.3")]
    response = get(lb.port, "/", spoken)
    assert {name.lower() for name, _ in response.headers} & ADDED == set()
    assert [header for header in there.requests[0].headers if header[0] not in ("Host", "Connection")] == spoken


def test_the_request_id_can_have_another_name(pair):
    lb, there = pair(config={"headers": {"request_id": "X-Trace"}})
    assert get(lb.port).field("X-Trace") == there.requests[0].field("X-Trace") != None  # noqa: E711


def test_absolute_form_becomes_origin_form(pair):
    """RFC 9112 3.2.2: the authority of the target takes the place of Host."""
    lb, there = pair()
    exchange(lb.port, b"GET http://other.example:81/p?q HTTP/1.1\r\nHost: other.example:81\r\n"
             b"Connection: close\r\n\r\n")
    assert there.requests[0].line == "GET /p?q HTTP/1.1"
    assert there.requests[0].field("Host") == "other.example:81"


def test_options_for_the_whole_server(pair):
    lb, there = pair()
    with Client(lb.port) as client:
        assert client.request("OPTIONS", "*").status == 200
    assert there.requests[0].line == "OPTIONS * HTTP/1.1"


def test_empty_lines_before_a_request_are_ignored(pair):
    """RFC 9112 2.2: at least one."""
    lb, there = pair()
    assert exchange(lb.port, b"\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status == 200
    assert there.requests[0].head.startswith(b"GET ")


def test_content_length_is_forwarded_in_its_plain_form(pair):
    lb, there = pair()
    exchange(lb.port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 005\r\nConnection: close\r\n\r\nhello")
    assert there.requests[0].field("Content-Length") == "5" and there.requests[0].body == b"hello"


# ---- HTTP/1.0 --------------------------------------------------------------------------------------------------------


def test_an_http_1_0_client_is_served_and_the_connection_closed(pair):
    lb, there = pair()
    response = exchange(lb.port, b"GET / HTTP/1.0\r\n\r\n")
    assert response.status == 200 and response.body == b"ok"
    request = there.requests[0]
    assert request.version == "HTTP/1.1" and request.field("Host"), "the forwarded HTTP/1.1 request needs a Host"
    assert request.field("Via").startswith("1.0 ")


def test_an_http_1_0_client_can_keep_its_connection(pair):
    lb, _ = pair()
    with Client(lb.port) as client:
        for _ in range(3):
            client.send(b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
            response = client.response()
            assert response.status == 200 and response.field("Connection").lower() == "keep-alive"


def test_an_http_1_0_client_never_gets_chunks(pair):
    lb, _ = pair(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    response = exchange(lb.port, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert response.field("Transfer-Encoding") is None and response.body == b"abcdefg"


# ---- responses -------------------------------------------------------------------------------------------------------


def test_a_response_arrives_as_it_was_sent(pair):
    sent = [("Date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("server", "Me/1.0"), ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2"), ("X-Latin", "\xe4"), ("ETag", '"x"'), ("X-Empty", "")]
    lb, _ = pair(reply("body", "299 Very Well, thanks", sent))
    response = get(lb.port)
    assert (response.status, response.reason, response.body) == (299, "Very Well, thanks", b"body")
    headers = without_added(response.headers)
    assert [header for header in headers if header[0] not in ("Content-Length", "Connection")] == sent


def test_hop_by_hop_fields_of_a_response_stay_on_their_hop(pair):
    lb, _ = pair(reply(headers=[("Connection", "X-Secret, keep-alive"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"),
                                ("Proxy-Connection", "keep-alive"), ("Upgrade", "h2c"), ("X-Stays", "1")]))
    names = {name.lower() for name, _ in get(lb.port).headers}
    assert "x-stays" in names
    assert names & {"x-secret", "keep-alive", "proxy-connection", "upgrade"} == set()


def test_head_has_no_body_but_its_length(pair):
    lb, _ = pair([reply("12345")[:-5], reply("next")])
    with Client(lb.port) as client:
        response = client.request("HEAD", "/")
        assert response.status == 200 and response.field("Content-Length") == "5"
        assert client.get().body == b"next"


@pytest.mark.parametrize("status, headers", [("204 No Content", []), ("304 Not Modified", [("ETag", '"x"')]),
                                             ("304 Not Modified", [("Content-Length", "12345")])])
def test_responses_without_body(pair, status, headers):
    lb, _ = pair([reply(b"", status, headers, length=False), reply("next")])
    with Client(lb.port) as client:
        response = client.get()
        assert f"{response.status} {response.reason}" == status
        assert response.field("Transfer-Encoding") is None
        assert client.get().body == b"next"


def test_204_has_no_content_length(pair):
    """RFC 9110 8.6: MUST NOT."""
    lb, _ = pair(reply(b"", "204 No Content", [("Content-Length", "0")], length=False))
    assert get(lb.port).field("Content-Length") is None


@pytest.mark.parametrize("method, status", [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified"),
                                            ("GET", "200 OK")])
def test_surplus_bytes_never_become_the_next_response(pair, method, status):
    """A backend that sends more than it may: the response-queue poisoning of http-rules.md."""
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    first = reply("ok" if status == "200 OK" and method == "GET" else "", status) + surplus
    lb, there = pair([first, reply("next"), reply("later")])
    with Client(lb.port) as client:
        client.request(method, "/")
        assert client.get().body == b"next"
        assert client.get().body == b"later"
    assert len(there.connections) == 2, "the connection with the surplus was used again"


def test_interim_responses_are_passed_on(pair):
    """RFC 9110 15.2: a proxy MUST forward 1xx responses."""
    lb, _ = pair(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + reply())
    with Client(lb.port) as client:
        client.start("GET", "/")
        hints = client.head()
        assert (hints.status, hints.field("Link")) == (103, "</a>")
        assert client.head().status == 102
        assert client.response().body == b"ok"


def test_interim_responses_are_not_for_http_1_0(pair):
    lb, _ = pair(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply())
    with Client(lb.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.head().status == 200


def test_a_chunked_response_stays_chunked(pair):
    lb, _ = pair(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0004\r\ndefg\r\n0\r\n\r\n")
    with Client(lb.port) as client:
        for _ in range(2):
            response = client.get()
            assert response.chunks is not None and response.body == b"abcdefg"


def test_trailers_never_become_header_fields(pair):
    """RFC 9110 6.5.1"""
    lb, _ = pair([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
                  reply("next")])
    with Client(lb.port) as client:
        response = client.get()
        assert response.body == b"abc" and response.field("X-T") is None
        assert client.get().body == b"next"


def test_a_response_that_ends_with_the_connection(pair):
    def answer(connection, request):
        connection.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")
        connection.close()
    lb, _ = pair(answer)
    for _ in range(3):
        assert get(lb.port).body == b"until the end"
    assert exchange(lb.port, b"GET / HTTP/1.0\r\n\r\n").body == b"until the end"


def test_an_http_1_0_backend_is_not_reused(pair):
    lb, there = pair(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with Client(lb.port) as client:
        assert [client.get().body for _ in range(3)] == [b"ok"] * 3
    assert len(there.connections) == 3


def test_bodies_of_requests_with_any_method_are_forwarded(pair):
    lb, there = pair()
    with Client(lb.port) as client:
        for method in ("GET", "DELETE", "OPTIONS", "POST"):
            assert client.request(method, "/", body=method.encode()).status == 200
    assert [request.body for request in there.requests] == [b"GET", b"DELETE", b"OPTIONS", b"POST"]


def test_an_empty_body_is_forwarded_as_one(pair):
    lb, there = pair()
    assert post(lb.port, "/").status == 200
    assert there.requests[0].field("Content-Length") == "0"
