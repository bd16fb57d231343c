"""Who the client is: what backends are told, and which proxies in front are believed (README, "trusted_proxies").

127.0.0.2 and 127.0.0.3 are proxies that are trusted here, every other address is anybody.
"""
import re

import pytest
from harness import Client, get, reply

TRUSTED = ["127.0.0.2/32", "127.0.0.3"]
PROXY = "127.0.0.2"
ALL = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"}


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def seen(balancer, backend):
    """seen(headers, source, mode) -> the request as the backend got it"""
    balancers = {}

    def do(headers=(), source="127.0.0.1", mode="x", trusted=TRUSTED, **options):
        key = (mode, str(trusted))
        if key not in balancers:
            there = backend()
            config = {"headers": {"forwarded": mode}, "trusted_proxies": trusted}
            balancers[key] = balancer(there, config=config, **options), there
        lb, there = balancers[key]
        with Client(lb.port, source=source) as client:
            client.start("GET", "/", [("Host", "www.example:81"), *headers], host=False)
            assert client.response().status == 200
        return there.requests[-1]
    return do


def added(request):
    return {name.lower(): value for name, value in request.headers if name.lower() in ALL}


def forwarded(request):
    """Elements of the one field Forwarded (RFC 7239 4), each as a dict."""
    value = request.field("Forwarded")
    elements = []
    for element in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', value):
        pairs = {}
        for pair in re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', element.strip()):
            match = re.fullmatch(r'([!#$%&\'*+.^_`|~\w-]+)=([!#$%&\'*+.^_`|~\w-]+|"(?:[^"\\]|\\.)*")', pair)
            assert match, f"no forwarded-pair of RFC 7239 4: {pair!r} in {value!r}"
            assert match[1].lower() not in pairs
            pairs[match[1].lower()] = match[2].strip('"')
            if match[2].startswith('"') is False:
                assert ":" not in match[2]
        elements.append(pairs)
    return elements


LIES = [("X-Forwarded-For", "203.0.113.7"), ("x-forwarded-for", "198.51.100.1"), ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "bank.example"), ("Forwarded", "for=203.0.113.7;proto=https"),
        ("forwarded", "for=10.0.0.1")]


# ---- from anybody ----------------------------------------------------------------------------------------------------


def test_what_anybody_says_is_replaced(seen, workers):
    assert added(seen(LIES, workers=workers)) == {
        "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-host": "www.example:81"}
    assert added(seen(LIES, source="127.0.0.4")) == {
        "x-forwarded-for": "127.0.0.4", "x-forwarded-proto": "http", "x-forwarded-host": "www.example:81"}


def test_what_anybody_says_is_replaced_as_rfc_7239(seen, workers):
    for headers in ((), LIES):
        request = seen(headers, mode="rfc7239", workers=workers)
        assert set(added(request)) == {"forwarded"}, "and not a single X-Forwarded field"
        assert forwarded(request) == [{"for": "127.0.0.1", "proto": "http", "host": "www.example:81"}]


def test_both_ways_at_once(seen):
    request = seen(LIES, mode="both")
    assert set(added(request)) == ALL
    assert request.field("X-Forwarded-For") == "127.0.0.1" == forwarded(request)[0]["for"]
    assert len(forwarded(request)) == 1


@pytest.mark.parametrize("source", ["127.0.0.1", PROXY])
def test_off_leaves_all_as_it_came(seen, source):
    assert [header for header in seen(LIES, source, mode="off").headers if header[0].lower() in ALL] == LIES
    assert added(seen((), source, mode="off")) == {}


@pytest.mark.parametrize("trusted", [[], ["127.0.0.0/30", "127.0.0.5"], ["::/0"], ["10.0.0.0/8"]], ids=str)
def test_who_is_not_in_the_list_is_anybody(seen, trusted):
    assert seen(LIES, source="127.0.0.4", trusted=trusted).field("X-Forwarded-For") == "127.0.0.4"


# ---- from a trusted proxy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted, source", [(["127.0.0.0/8"], "127.9.8.7"), (["127.0.0.2"], PROXY),
                                             (["0.0.0.0/0"], PROXY),
                                             (["10.0.0.0/8", "127.0.0.0/30"], "127.0.0.3")], ids=str)
def test_who_is_in_the_list_is_believed(seen, trusted, source):
    request = seen([("X-Forwarded-For", "203.0.113.7")], source, trusted=trusted)
    assert request.field("X-Forwarded-For") == f"203.0.113.7, {source}"


def test_a_trusted_proxy_is_gone_on_with(seen, workers):
    request = seen([("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Host", "bank.example")], PROXY, workers=workers)
    assert added(request) == {"x-forwarded-for": f"203.0.113.7, {PROXY}", "x-forwarded-proto": "https",
                              "x-forwarded-host": "bank.example"}


def test_what_a_trusted_proxy_leaves_out_is_added(seen):
    here = {"x-forwarded-for": PROXY, "x-forwarded-proto": "http", "x-forwarded-host": "www.example:81"}
    assert added(seen((), PROXY)) == here
    assert added(seen([("X-Forwarded-Proto", "https")], PROXY)) == {**here, "x-forwarded-proto": "https"}
    assert added(seen([("X-Forwarded-Host", "h")], PROXY)) == {**here, "x-forwarded-host": "h"}
    assert added(seen([("X-Forwarded-For", "")], PROXY)) == here


def test_a_list_stays_one_field_in_its_order(seen):
    """`field` fails when there are two: programs that read only one of them would read the wrong one."""
    request = seen([("X-Forwarded-For", "203.0.113.7,  198.51.100.1"), ("X-Forwarded-Proto", "https"),
                    ("x-forwarded-for", "10.1.1.1"), ("X-FORWARDED-FOR", "")], PROXY)
    assert [item.strip() for item in request.field("X-Forwarded-For").split(",")] == \
        ["203.0.113.7", "198.51.100.1", "10.1.1.1", PROXY]


def test_a_trusted_proxy_is_gone_on_with_as_rfc_7239(seen):
    request = seen([("Forwarded", 'for=203.0.113.7;proto=https, for="[2001:db8::1]:443";by="_a,b;c"'),
                    ("forwarded", "for=unknown")], PROXY, mode="rfc7239")
    assert forwarded(request) == [{"for": "203.0.113.7", "proto": "https"},
                                  {"for": "[2001:db8::1]:443", "by": "_a,b;c"}, {"for": "unknown"},
                                  {"for": PROXY, "proto": "http", "host": "www.example:81"}]
    assert forwarded(seen((), PROXY, mode="rfc7239")) == [{"for": PROXY, "proto": "http", "host": "www.example:81"}]
    assert request.field("X-Forwarded-For") is None and request.field("X-Forwarded-Proto") is None


def test_a_trusted_proxy_and_both_ways(seen):
    request = seen([("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=203.0.113.7")], PROXY, mode="both")
    assert request.field("X-Forwarded-For") == f"203.0.113.7, {PROXY}"
    assert [element["for"] for element in forwarded(request)] == ["203.0.113.7", PROXY]


@pytest.mark.parametrize("source, kept", [("127.0.0.1", "127.0.0.1"), (PROXY, PROXY)])
@pytest.mark.parametrize("mode", ["x", "rfc7239", "both"])
def test_connection_takes_away_what_the_client_sent_and_never_ours(seen, source, kept, mode):
    """CVE-2024-45410, CVE-2022-31813."""
    request = seen([("Connection", "close, X-Forwarded-For, x-forwarded-proto, X-Forwarded-Host, Forwarded"), *LIES],
                   source, mode=mode)
    if mode != "rfc7239":
        assert request.field("X-Forwarded-For") == kept
        assert request.field("X-Forwarded-Proto") == "http"
        assert request.field("X-Forwarded-Host") == "www.example:81"
    if mode != "x":
        assert forwarded(request) == [{"for": kept, "proto": "http", "host": "www.example:81"}]


def test_a_long_list(seen):
    addresses = [f"198.51.{i // 250}.{i % 250}" for i in range(700)]
    request = seen([("X-Forwarded-For", ", ".join(addresses)), ("Forwarded", "for=1.1.1.1")], PROXY, mode="both")
    assert request.field("X-Forwarded-For") == ", ".join(addresses + [PROXY])


def test_an_http_1_0_request_without_host(balancer, backend):
    there = backend()
    lb = balancer(there, config={"headers": {"forwarded": "both"}})
    with Client(lb.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.response().status == 200
    request = there.requests[0]
    assert request.field("X-Forwarded-For") == "127.0.0.1" and request.field("X-Forwarded-Host") is None
    assert forwarded(request) == [{"for": "127.0.0.1", "proto": "http"}]


def test_the_target_says_the_host(balancer, backend):
    there = backend()
    lb = balancer(there, config={"headers": {"forwarded": "both"}})
    with Client(lb.port) as client:
        client.send(b"GET http://other.example:8/ HTTP/1.1\r\nHost: other.example:8\r\n\r\n")
        assert client.response().status == 200
    assert there.requests[0].field("X-Forwarded-Host") == "other.example:8"
    assert forwarded(there.requests[0])[0]["host"] == "other.example:8"


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source, headers, real", [
    ("127.0.0.1", [("X-Forwarded-For", "203.0.113.7")], "127.0.0.1"),
    (PROXY, [], PROXY),
    (PROXY, [("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
    (PROXY, [("X-Forwarded-For", "6.6.6.6, 203.0.113.7")], "203.0.113.7"),
    (PROXY, [("X-Forwarded-For", "6.6.6.6, 203.0.113.7, 127.0.0.3")], "203.0.113.7"),
    (PROXY, [("X-Forwarded-For", "6.6.6.6,203.0.113.7"), ("X-Forwarded-For", "127.0.0.3 ,127.0.0.3")], "203.0.113.7"),
    (PROXY, [("X-Forwarded-For", "6.6.6.6, 2001:db8::9, 127.0.0.3")], "2001:db8::9"),
    (PROXY, [("X-Forwarded-For", "127.0.0.3")], "127.0.0.3"),
    (PROXY, [("X-Forwarded-For", "6.6.6.6, nonsense, 127.0.0.3")], "127.0.0.3"),
    (PROXY, [("X-Forwarded-For", "6.6.6.6, " + "9" * 200)], PROXY),
    (PROXY, [("X-Forwarded-For", ", ,")], PROXY),
    (PROXY, [("X-Forwarded-For", "203.0.113.7"), ("Connection", "X-Forwarded-For")], PROXY),
], ids=str)
def test_the_log_names_the_real_client(balancer, backend, source, headers, real):
    """The nearest address that is no trusted proxy; what stands before it anybody may have written."""
    there = backend(b"nonsense\r\n\r\n")
    lb = balancer(there, config={"trusted_proxies": TRUSTED})
    assert get(lb.port, "/failing", headers, source=source).status == 502
    line, = lb.wait_log("/failing")
    assert re.search(rf"(?<![\w.:]){re.escape(real)}: 502 ", line), line
    assert "6.6.6.6" not in line and "nonsense, " not in line


def test_the_log_names_the_real_client_of_a_request_that_is_cut(balancer, backend):
    lb = balancer(backend(), config={"trusted_proxies": TRUSTED, "timeouts": {"body": "200ms"}})
    with Client(lb.port, source=PROXY) as client:
        client.start("POST", "/", [("X-Forwarded-For", "203.0.113.7"), ("Content-Length", "5")])
        assert client.response().status == 408
    line, = lb.wait_log(": 408: ")
    assert "203.0.113.7: 408" in line


def test_proxies_that_are_trusted_have_no_limit_by_address(balancer, backend):
    """They carry the connections of many."""
    lb = balancer(backend(reply()), config={"trusted_proxies": TRUSTED, "limits": {"connections_per_ip": 2}})
    clients = [Client(lb.port, source=PROXY) for _ in range(5)]
    assert [client.get().status for client in clients] == [200] * 5
    others = [Client(lb.port) for _ in range(3)]
    assert [client.get().status for client in others] == [200, 200, 429]
    for client in clients + others:
        client.close()
