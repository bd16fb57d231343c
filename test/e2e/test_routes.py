"""Which pool takes a request: the first route that matches in all it names (README, "routes")."""
import json
import os
import signal
import string

import pytest
from harness import Balancer, Client, exchange, get, reply, run


def tells(name):
    """A backend that says which pool it is in, and what it was asked."""
    def answer(connection, request):
        if request.method == "HEAD":
            connection.send(b"HTTP/1.1 200 OK\r\nX-Pool: %s\r\nContent-Length: 10\r\n\r\n" % name.encode())
        else:
            connection.send(reply(f"{name} {request.target}"))
    return answer


@pytest.fixture
def routed(lifetimes, backend, tmp_path):
    """routed(routes, pools="abc", workers=1, pool={...}) -> a balancer; pool `a` has the backend lb.a, and so on"""
    def do(routes, pools="abc", pool=None, config=None, **options):
        backends = {name: backend(tells(name)) for name in pools}
        settings = {name: {"backends": [there], "health": "off", **(pool or {})} for name, there in backends.items()}
        lb = lifetimes.enter_context(Balancer(tmp_path, settings, config={"routes": routes, **(config or {})},
                                              **options))
        vars(lb).update(backends)
        return lb
    return do


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def ask(client, target="/", host="x", method="GET", headers=()):
    """What the backend said; or the status of an answer of the balancer's own."""
    client = client if isinstance(client, Client) else Client(client.port)
    client.start(method, target, [("Host", host), *headers], host=False)
    response = client.response(method)
    assert response.status in (200, 404) and not response.closes
    if method == "HEAD":
        return response.field("X-Pool") or 404
    return response.text if response.status == 200 else 404


def pool_of(*args, **options):
    said = ask(*args, **options)
    return said if said == 404 else said.split()[0]


# ---- order -----------------------------------------------------------------------------------------------------------


def test_the_first_route_that_matches_wins(routed, workers):
    lb = routed([{"path": "/a/b", "pool": "b"}, {"path": "/a", "pool": "a"}, {"path": "/a/b/c", "pool": "c"}],
                workers=workers)
    with Client(lb.port) as client:
        assert [pool_of(client, target) for target in ("/a/b/c", "/a/b", "/a/c", "/a")] == ["b", "b", "a", "a"]


def test_each_request_of_a_connection_goes_its_own_way(routed, workers):
    lb = routed([{"path": f"/{name}", "pool": name} for name in "abc"], workers=workers)
    with Client(lb.port) as client:
        client.send(b"".join(b"GET /%c/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (b"abcd"[i % 4], i) for i in range(40)))
        said = [client.response() for _ in range(40)]
    assert [response.status for response in said] == [200, 200, 200, 404] * 10
    assert [r.text for r in said if r.status == 200] == [f"{'abcd'[i % 4]} /{'abcd'[i % 4]}/{i}" for i in range(40)
                                                        if i % 4 < 3]


def test_without_routes_the_first_pool_takes_all(lifetimes, backend, tmp_path):
    pools = {name: {"backends": [backend(tells(name))], "health": "off"} for name in "zab"}
    lb = lifetimes.enter_context(Balancer(tmp_path, pools))
    assert {pool_of(lb, target) for target in ("/", "/a", "/b")} == {"z"}


def test_many_routes(routed):
    letters = [x + y for x in string.ascii_lowercase for y in string.ascii_lowercase]
    lb = routed([{"host": f"{name}.example", "path": f"/{name}/", "pool": "abc"[i % 3]} for i, name in
                 enumerate(letters)])
    with Client(lb.port) as client:
        for i, name in list(enumerate(letters))[::25] + [(675, "zz")]:
            assert pool_of(client, f"/{name}/x", f"{name}.example") == "abc"[i % 3]
            assert pool_of(client, f"/{name}/x", "a.example") == 404 or name == "a"


# ---- host ------------------------------------------------------------------------------------------------------------


def test_a_host(routed):
    lb = routed([{"host": "api.example.com", "pool": "a"}, {"host": "WWW.Example.COM", "pool": "b"}])
    with Client(lb.port) as client:
        for host in ("api.example.com", "API.EXAMPLE.COM", "api.example.com:8080", "api.example.com.",
                     "Api.Example.Com.:80", "api.example.com:"):
            assert pool_of(client, host=host) == "a", host
        assert pool_of(client, host="www.example.com") == "b"
        for host in ("example.com", "x.api.example.com", "xapi.example.com", "api.example.com.evil.org",
                     "api.example.co", "api.example.comm", "", "127.0.0.1", "[::1]"):
            assert pool_of(client, host=host) == 404, host


def test_all_hosts_below_a_domain(routed):
    lb = routed([{"host": "www.example.com", "pool": "a"}, {"host": "*.Example.com", "pool": "b"}])
    with Client(lb.port) as client:
        assert pool_of(client, host="www.example.com") == "a"
        for host in ("api.example.com", "a.b.c.example.com", "API.EXAMPLE.COM.:81", "www.www.example.com"):
            assert pool_of(client, host=host) == "b", host
        for host in ("example.com", "example.com.", "xexample.com", "www.example.com.evil.org", "*.example.org"):
            assert pool_of(client, host=host) == 404, host


def test_a_host_that_is_an_address(routed):
    lb = routed([{"host": "127.0.0.1", "pool": "a"}, {"host": "[::1]", "pool": "b"}])
    with Client(lb.port) as client:
        assert [pool_of(client, host=host) for host in ("127.0.0.1", "127.0.0.1:99", "[::1]", "[::1]:99")] == \
            ["a", "a", "b", "b"]
        assert pool_of(client, host="[::2]") == 404


def test_a_request_without_a_host(routed):
    """HTTP/1.0: it fits where no host is asked for."""
    lb = routed([{"host": "*.x", "pool": "a"}, {"path": "/b", "pool": "b"}])
    assert exchange(lb.port, b"GET /b HTTP/1.0\r\n\r\n").text == "b /b"
    assert exchange(lb.port, b"GET / HTTP/1.0\r\n\r\n").status == 404


# ---- path ------------------------------------------------------------------------------------------------------------


def test_a_path_ends_at_the_end_of_a_segment(routed):
    lb = routed([{"path": "/admin", "pool": "a"}, {"path": "/v1/", "pool": "b"}, {"path": "/", "pool": "c"}])
    with Client(lb.port) as client:
        for target in ("/admin", "/admin/", "/admin/x", "/admin?x=/y", "/admin//", "/admin/..x", "/admin/%2F"):
            assert pool_of(client, target) == "a", target
        for target in ("/v1/", "/v1/users", "/v1/?x"):
            assert pool_of(client, target) == "b", target
        for target in ("/", "/administrator", "/admin%2Fx", "/admin;x", "/Admin", "/x/admin", "/?/admin", "/v1",
                       "/v1?x=/", "/v10", "/v1;/", "//admin"):
            assert pool_of(client, target) == "c", target


@pytest.mark.parametrize("target", ["/x/../admin", "/%61dmin", "/%61%64%6D%69%6e/users", "/./admin", "/x/./../admin/y",
                                    "/../admin", "/x/%2e%2e/admin", "/x/%2E./admin?q", "/x/.%2e/admin", "/%2e/admin",
                                    "/a/b/c/../../../admin", "/admin/.", "/admin/x/..", "/admin/./x"])
def test_another_spelling_is_no_way_round(routed, target):
    """RFC 3986 6.2.2: to a backend it may mean the same. What it gets is what was asked for, unchanged."""
    lb = routed([{"path": "/admin", "pool": "a"}, {"path": "/", "pool": "b"}])
    assert ask(lb, target) == f"a {target}"


@pytest.mark.parametrize("target", ["/admin/..", "/admin/../x", "/admin/%2e%2e/x", "/x/admin", "/admi%6e%6e",
                                    "/%2561dmin", "/x%2F..%2Fadmin", "/admin%00", "/admin.", "/.admin",
                                    "/.../admin", "/%41dmin"])
def test_what_is_not_below_it_does_not_match(routed, target):
    lb = routed([{"path": "/admin", "pool": "a"}, {"path": "/", "pool": "b"}])
    assert ask(lb, target) == f"b {target}"


def test_hexadecimal_digits_have_no_case(routed):
    lb = routed([{"path": "/caf%C3%A9", "pool": "a"}, {"path": "/th%c3%a9", "pool": "b"}])
    with Client(lb.port) as client:
        assert [ask(client, target) for target in ("/caf%c3%a9/x", "/caf%C3%A9", "/th%C3%A9", "/c%61f%c3%A9")] == \
            ["a /caf%c3%a9/x", "a /caf%C3%A9", "b /th%C3%A9", "a /c%61f%c3%A9"]


# ---- method, header, all of it ---------------------------------------------------------------------------------------


def test_a_method(routed):
    lb = routed([{"method": ["GET", "HEAD"], "pool": "a"}, {"method": ["PURGE"], "pool": "b"},
                 {"method": "POST", "path": "/p", "pool": "c"}])
    with Client(lb.port) as client:
        assert [pool_of(client, "/p", method=method) for method in ("GET", "HEAD", "PURGE", "POST")] == list("aabc")
        assert [pool_of(client, method=method) for method in ("get", "PUT", "POST", "GETS", "G")] == [404] * 5


def test_a_header(routed):
    lb = routed([{"header": {"X-Beta": "1"}, "pool": "a"}, {"header": {"X-Any": "*"}, "pool": "b"},
                 {"header": {"X-One": "one two", "X-Two": "*"}, "pool": "c"}])
    with Client(lb.port) as client:
        for headers in ([("X-Beta", "1")], [("x-BETA", " 1 ")], [("X-Beta", "2"), ("X-Beta", "1")],
                        [("X-Any", "x"), ("X-Beta", "1")]):
            assert pool_of(client, headers=headers) == "a", headers
        for headers in ([("X-Any", "x")], [("x-any", "")], [("X-Any", "*"), ("X-Beta", "11")]):
            assert pool_of(client, headers=headers) == "b", headers
        assert pool_of(client, headers=[("X-Two", ""), ("X-One", "one two")]) == "c"
        for headers in ([("X-Beta", "")], [("X-Beta", "2")], [("X-Beta2", "1")], [("X-One", "one two")],
                        [("X-One", "One two"), ("X-Two", "1")], [("X-Two", "1")]):
            assert pool_of(client, headers=headers) == 404, headers


def test_all_that_a_route_names_must_match(routed):
    lb = routed([{"host": "x.example", "path": "/p", "method": ["GET"], "header": {"X-A": "1", "X-B": "*"},
                  "pool": "a"}, {"pool": "b"}])
    good = {"target": "/p/q", "host": "X.example:1", "method": "GET", "headers": [("X-A", "1"), ("X-B", "")]}
    with Client(lb.port) as client:
        assert pool_of(client, **good) == "a"
        for change in ({"target": "/q"}, {"host": "y.example"}, {"method": "PUT"}, {"headers": [("X-A", "1")]},
                       {"headers": [("X-B", "1")]}, {"headers": [("X-A", "2"), ("X-B", "")]}):
            assert pool_of(client, **{**good, **change}) == "b", change


def test_headers_for_one_hop_are_seen_too(routed):
    """It is the request that is routed, as it came."""
    lb = routed([{"header": {"Upgrade": "foo"}, "pool": "a"}, {"pool": "b"}])
    assert pool_of(lb, headers=[("Connection", "Upgrade"), ("Upgrade", "foo")]) == "a"


# ---- forms of a target -----------------------------------------------------------------------------------------------


def test_an_absolute_form_is_routed_by_its_own_host(routed):
    lb = routed([{"host": "a.example", "path": "/p", "pool": "a"}, {"host": "*.example", "pool": "b"}])
    for data, said in ((b"GET http://a.example/p?q HTTP/1.1\r\nHost: a.example\r\n", "a /p?q"),
                       (b"GET http://A.example:80/x/../p HTTP/1.1\r\nHost: A.example:80\r\n", "a /x/../p"),
                       (b"GET HTTP://b.example/p HTTP/1.1\r\nHost: b.example\r\n", "b /p"),
                       (b"GET http://b.example HTTP/1.1\r\nHost: b.example\r\n", "b /"),
                       (b"GET http://b.example?q HTTP/1.1\r\nHost: b.example\r\n", "b /?q"),
                       (b"GET http://a.example/p HTTP/1.0\r\n", "a /p")):
        assert exchange(lb.port, data + b"Connection: close\r\n\r\n").text == said, data


def test_options_for_the_whole_server_has_no_path(routed):
    lb = routed([{"path": "/", "pool": "a"}, {"host": "b.example", "pool": "b"}, {"method": ["OPTIONS"], "pool": "c"}])
    with Client(lb.port) as client:
        assert ask(client, "*", "b.example", "OPTIONS") == "b *"
        assert ask(client, "*", "x", "OPTIONS") == "c *"
        assert ask(client, "/", "b.example", "OPTIONS") == "a /"
    lb = routed([{"path": "/", "pool": "a"}])
    assert ask(lb, "*", "x", "OPTIONS") == 404


# ---- strip_prefix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/v1", "/v1/"])
def test_a_prefix_can_be_stripped(routed, prefix):
    lb = routed([{"path": prefix, "pool": "a", "strip_prefix": True}, {"path": "/", "pool": "b"}])
    with Client(lb.port) as client:
        for target, seen in (("/v1/users?q=/v1/x", "/users?q=/v1/x"), ("/v1/", "/"), ("/v1/?a", "/?a"),
                             ("/v1/a/", "/a/"),
                             ("/v1/v1/v1", "/v1/v1"), ("/v1/a%2Fb", "/a%2Fb"), ("/v1/%C3%A9?%zz", "/%C3%A9?%zz"),
                             ("/v1/a?b?c=../..", "/a?b?c=../.."), ("/%76%31/users", "/users"),
                             ("/x/../v1/users", "/users"),
                             ("/v1/x?", "/x?")):
            assert ask(client, target) == f"a {seen}", target
        for target in ("/v10/users", "/v1/../users", "/v1/%2e%2e/users", "/x/v1/users"):
            assert ask(client, target) == f"b {target}"
        if prefix == "/v1":
            assert [ask(client, "/v1"), ask(client, "/v1?q")] == ["a /", "a /?q"]
        else:
            assert ask(client, "/v1") == "b /v1"


def test_a_stripped_prefix_in_other_forms(routed):
    lb = routed([{"host": "x.example", "path": "/", "pool": "a", "strip_prefix": True},
                 {"path": "/v1", "pool": "b", "strip_prefix": True}])
    for target, said in ((b"http://y.example/v1/u?q", "b /u?q"), (b"http://y.example/v1?q", "b /?q"),
                         (b"http://x.example", "a /"), (b"http://x.example?q", "a /?q"),
                         (b"http://x.example/v1/u", "a /v1/u")):
        host = target.split(b"/")[2].split(b"?")[0]
        data = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)
        assert exchange(lb.port, data).text == said, target


def test_a_long_target_without_its_prefix(routed):
    lb = routed([{"path": "/v1", "pool": "a", "strip_prefix": True}])
    target = "/" + "x/../y" * 1000 + "?" + "q" * 4000
    with Client(lb.port) as client:
        client.start("POST", "/v1" + target, [("X-Long", "l" * 4000)], b"the body")
        said = client.response()
        assert said.status == 200 and said.text.endswith("?" + "q" * 4000)
        assert client.get("/v1/short").text == "a /short"
    assert lb.a.requests[0].body == b"the body" and lb.a.requests[0].field("X-Long") == "l" * 4000


def test_a_stripped_request_can_be_sent_again(routed):
    """On a fresh connection, because the kept one has been closed: it must be the same request."""
    def answer(connection, request):
        if connection.received.count(b" HTTP/1.1\r\n") > 1:
            connection.close()
        connection.send(reply(request.target))
    lb = routed([{"path": "/v1", "pool": "a", "strip_prefix": True}])
    lb.a.answer = answer
    with Client(lb.port) as client:
        assert [client.get(f"/v1/{i}").text for i in range(10)] == [f"/{i}" for i in range(10)]


# ---- no route --------------------------------------------------------------------------------------------------------


def test_no_route_is_404(routed, workers):
    lb = routed([{"path": "/a", "pool": "a"}], workers=workers)
    with Client(lb.port) as client:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            assert client.request(method, "/b").status == 404
        head = client.request("HEAD", "/b")
        assert head.status == 404 and head.body == b""
        assert client.request("POST", "/b", body=b"").status == 404
        assert client.get("/a").text == "a /a"
    lb.wait_idle()
    assert lb.total("unrouted") == 6
    assert lb.backend(lb.a)["errors"] == 0 and lb.total("unavailable") == 0
    assert [request.line for request in lb.a.requests] == ["GET /a HTTP/1.1"]


@pytest.mark.parametrize("headers, body", [([("Content-Length", "100000")], b"x" * 100000),
                                           ([("Transfer-Encoding", "chunked")], b"186A0\r\n" + b"x" * 100000 +
                                            b"\r\n0\r\n\r\n"),
                                           ([("Content-Length", "16")], b"GET /a HTTP/1.1\r\n"[:16])])
def test_a_body_that_no_route_takes_is_no_request(routed, headers, body):
    """Either it is read and dropped, or the connection ends; never is it taken for the next request."""
    lb = routed([{"path": "/a", "pool": "a"}])
    with Client(lb.port) as client:
        client.start("POST", "/b", headers)
        client.send(body)
        response = client.response()
        assert response.status == 404
        if response.closes:
            assert client.is_closed()
        else:
            assert client.get("/a").text == "a /a"
    assert lb.total("refused") == 0 and len(lb.a.requests) == (0 if response.closes else 1)


def test_the_log_says_that_no_route_matched(routed):
    lb = routed([{"path": "/a", "pool": "a"}])
    answer = get(lb.port, "/b?secret")
    line, = lb.wait_log(": 404 ")
    assert "127.0.0.1" in line and answer.field("X-Request-ID") in line


# ---- pools of routes -------------------------------------------------------------------------------------------------


def test_each_route_has_its_own_balancing(lifetimes, backend, tmp_path, workers):
    backends = {name: [backend(tells(f"{name}{i}")) for i in range(n)] for name, n in (("a", 2), ("b", 3))}
    pools = {name: {"backends": those, "health": "off"} for name, those in backends.items()}
    lb = lifetimes.enter_context(Balancer(tmp_path, pools, workers=workers, config={
        "routes": [{"path": "/a", "pool": "a"}, {"path": "/b", "pool": "b"}]}))
    said = [get(lb.port, f"/{'ab'[i % 2]}").text.split()[0] for i in range(60)]
    assert {name: said.count(name) for name in set(said)} == {"a0": 15, "a1": 15, "b0": 10, "b1": 10, "b2": 10}


def test_a_pool_that_is_down_does_not_send_its_requests_elsewhere(lifetimes, backend, tmp_path):
    up, down = backend(tells("up")), backend(tells("down"))
    down.stop()
    health = {"interval": "100ms", "fast_interval": "50ms"}
    lb = lifetimes.enter_context(Balancer(tmp_path, {
        "a": {"backends": [down], "health": health}, "b": {"backends": [up], "health": health}},
        config={"routes": [{"path": "/a", "pool": "a"}, {"path": "/", "pool": "b"}]}))
    lb.wait_health(down, "down")
    with Client(lb.port) as client:
        assert client.get("/a").status == 503
        assert client.get("/b").text == "up /b"


def test_an_upgrade_is_for_the_pool_to_allow(lifetimes, backend, tmp_path):
    there = {name: backend(lambda c, r, name=name: c.send(reply(f"{name} {r.field('Upgrade')}"))) for name in "ab"}
    lb = lifetimes.enter_context(Balancer(tmp_path, {
        "a": {"backends": [there["a"]], "health": "off"},
        "b": {"backends": [there["b"]], "health": "off", "upgrade": "off"}},
        config={"routes": [{"path": "/a", "pool": "a"}, {"path": "/b", "pool": "b"}]}))
    asks = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    assert [get(lb.port, target, asks).text for target in ("/a", "/b")] == ["a websocket", "b None"]


def test_routes_hold_after_a_crash(routed, workers):
    lb = routed([{"path": "/v1", "pool": "a", "strip_prefix": True}, {"host": "b.example", "pool": "b"}],
                workers=workers)
    pids = lb.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=pids)
    assert [ask(lb, "/v1/x"), ask(lb, "/x", "b.example"), ask(lb, "/x")] == ["a /x", "b /x", 404]


# ---- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route, column", [
    ('{ path: /a, pool: nosuch }', 23), ('{ path: a, pool: web }', 13), ('{ path: /a }', 5),
    ('{ path: "/a?b", pool: web }', 13),
    ('{ host: "a b", pool: web }', 13), ('{ host: "a.*.b", pool: web }', 13), ('{ host: "x:80", pool: web }', 13),
    ('{ method: ["G T"], pool: web }', 16), ('{ header: { "X Y": 1 }, pool: web }', 17), ('{ hosts: x, pool: web }', 7),
    ('{ strip_prefix: true, pool: web }', 7), ('{ path: /a, pool: web, strip_prefix: maybe }', 42),
])
def test_errors_in_routes_have_their_places(tmp_path, route, column):
    file = tmp_path / "vb.yaml"
    file.write_text(f"listen: 127.0.0.1:8080\npools:\n  web:\n    backends: [127.0.0.1:9]\nroutes:\n  - {route}\n")
    result = run("vibebalancer", "-c", file, "--check")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith(f"{file}:6:{column}: "), result.stderr


def test_a_pool_that_no_route_names_is_no_error(tmp_path):
    """It may be meant for later; but a word about it does no harm."""
    file = tmp_path / "vb.yaml"
    file.write_text(json.dumps({"listen": "127.0.0.1:8080", "routes": [{"path": "/", "pool": "a"}],
                                "pools": {name: {"backends": ["127.0.0.1:9"]} for name in "ab"}}))
    assert run("vibebalancer", "-c", file, "--check").returncode == 0
