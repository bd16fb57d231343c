"""IPv6 wherever an address can stand: listening, backends, clients, targets, fields, routes."""
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from harness import TIMEOUT, Client, echo, eventually, exchange, free_port, get, reply
from upgrade import all_over, ask, round_trip, switch_and_echo

if not Path("/proc/net/if_inet6").exists() or "00000000000000000000000000000001" not in Path(
        "/proc/net/if_inet6").read_text():
    pytest.skip("no IPv6 here", allow_module_level=True)


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def listens(balancer):
    """listens(backends, ...) -> a balancer on [::1]:lb.port"""
    def do(backends, listen="[::1]:{}", config=None, **options):
        port = free_port()
        listen = [one.format(port) for one in (listen if isinstance(listen, list) else [listen])]
        return balancer(backends, port=port, config={"listen": listen, **(config or {})}, **options)
    return do


def test_both_sides(listens, backend, workers):
    there = backend(echo, host="::1")
    lb = listens(there, workers=workers)
    body = os.urandom(2_000_000)
    with Client(lb.port, "::1") as client:
        assert [client.get().status for _ in range(10)] == [200] * 10
        assert client.request("POST", "/", body=body).body == body
    assert there.requests[0].field("X-Forwarded-For") == "::1"
    assert lb.backend(there)["address"] == f"[::1]:{there.port}"
    assert len(there.connections) == 1


def test_from_one_to_the_other(listens, balancer, backend):
    assert get(listens(backend(reply("v4"))).port, host="::1").text == "v4"
    assert get(balancer(backend(reply("v6"), host="::1")).port).text == "v6"


def test_both_families_on_one_port(listens, backend, workers):
    there = backend()
    lb = listens(there, ["0.0.0.0:{}", "[::]:{}"], workers=workers)
    for host in ("127.0.0.1", "::1") * 5:
        assert get(lb.port, host=host).status == 200
    assert {request.field("X-Forwarded-For") for request in there.requests} == {"127.0.0.1", "::1"}, \
        "no ::ffff:127.0.0.1, which would be another name for the same client"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(listens, backend):
    there = backend()
    lb = listens(there)
    result = subprocess.run(["curl", "-gsS", "--noproxy", "*", f"http://[::1]:{lb.port}/a"], capture_output=True,
                            timeout=TIMEOUT)
    assert (result.returncode, result.stdout) == (0, b"ok")
    assert there.requests[0].field("Host") == f"[::1]:{lb.port}" == there.requests[0].field("X-Forwarded-Host")


@pytest.mark.parametrize("target, host, line, seen", [
    (b"http://[::1]:8080/p?q", b"[::1]:8080", "GET /p?q HTTP/1.1", "[::1]:8080"),
    (b"http://[::1]/p", b"[::1]", "GET /p HTTP/1.1", "[::1]"),
    (b"http://[2001:DB8::1]", b"[2001:DB8::1]", "GET / HTTP/1.1", "[2001:DB8::1]"),
    (b"/p", b"[::1]:8080", "GET /p HTTP/1.1", "[::1]:8080"),
    (b"/p", b"[::ffff:127.0.0.1]", "GET /p HTTP/1.1", "[::ffff:127.0.0.1]"),
])
def test_addresses_as_hosts(listens, backend, target, host, line, seen):
    there = backend()
    lb = listens(there)
    with Client(lb.port, "::1") as client:
        client.send(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host))
        assert client.response().status == 200
    assert there.requests[0].line == line and there.requests[0].field("Host") == seen


@pytest.mark.parametrize("host", [b"::1", b"[::1", b"::1]", b"[::1]x", b"[::1]:x", b"[]", b"[1]", b"[::1%25lo]",
                                  b"[:::1]", b"[1:2:3:4:5:6:7:8:9]", b"[12345::]"])
def test_addresses_that_are_none(listens, backend, host):
    there = backend()
    lb = listens(there)
    with Client(lb.port, "::1") as client:
        client.send(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        assert client.response().status == 400
    assert there.requests == []


def test_a_backend_is_named_in_brackets(balancer, backend):
    """Where a request has no Host, and in checks."""
    there = backend(host="::1")
    lb = balancer(there, pool={"health": {"path": "/health", "interval": "100ms"}})
    lb.wait_health(there, "up")
    assert exchange(lb.port, b"GET /old HTTP/1.0\r\n\r\n").status == 200
    for target in ("/health", "/old"):
        assert {request.field("Host") for request in there.requests if request.target == target} == {there.address}
    there.stop()
    lb.wait_health(there, "down")


def test_what_backends_are_told(listens, backend):
    there = backend()
    lb = listens(there, config={"headers": {"forwarded": "both"}, "trusted_proxies": []})
    assert get(lb.port, "/", [("X-Forwarded-For", "2001:db8::5")], host="::1").status == 200
    request = there.requests[0]
    assert request.field("X-Forwarded-For") == "::1"
    assert request.field("Forwarded").split(";")[0] == 'for="[::1]"', "RFC 7239 6: in brackets, and quoted"


@pytest.mark.parametrize("trusted, seen", [(["::1"], "2001:db8::5, ::1"), (["::/0"], "2001:db8::5, ::1"),
                                           (["::1/128", "10.0.0.0/8"], "2001:db8::5, ::1"), (["fe80::/10"], "::1"),
                                           (["0.0.0.0/0"], "::1")], ids=str)
def test_a_trusted_proxy(listens, backend, trusted, seen):
    there = backend()
    lb = listens(there, config={"trusted_proxies": trusted})
    assert get(lb.port, "/", [("X-Forwarded-For", "2001:db8::5")], host="::1").status == 200
    assert there.requests[0].field("X-Forwarded-For") == seen


def test_messages(listens, backend):
    lb = listens(there := backend(b"nonsense\r\n\r\n", host="::1"))
    assert get(lb.port, "/x", host="::1").status == 502
    line, = lb.wait_log(": 502 ")
    assert " ::1: 502" in line and there.address in line


def test_limits_of_an_address(listens, backend, workers):
    lb = listens(backend(), ["127.0.0.1:{}", "[::1]:{}"], workers=workers, config={"limits": {"connections_per_ip": 2}})
    clients = [Client(lb.port, host) for host in ("::1", "127.0.0.1") * 2]
    assert [client.get().status for client in clients] == [200] * 4
    assert [get(lb.port, host=host).status for host in ("::1", "127.0.0.1")] == [429, 429]
    for client in clients:
        client.close()
    eventually(lambda: lb.total("connections") == 0, "all are gone")
    assert get(lb.port, host="::1").status == 200


def test_a_route_for_an_address(listens, backend):
    lb = listens(backend(), config={"routes": [{"host": "[::1]", "pool": "web"}]})
    with Client(lb.port, "::1") as client:
        for host, status in (("[::1]", 200), ("[::1]:81", 200), ("[0:0::0001]", 200), ("[::2]", 404), ("x", 404)):
            client.start("GET", "/", [("Host", host)], host=False)
            assert client.response().status == status, host


def test_a_tunnel(listens, backend, workers):
    lb = listens(backend(switch_and_echo, host="::1"), workers=workers)
    with ask(lb.port, host="::1") as client:
        assert round_trip(client, os.urandom(100_000))
        client.half_close()
        assert client.rest() == b""
    all_over(lb)


def test_the_proxy_protocol(listens, backend):
    there = backend()
    port = free_port()
    lb = listens(there, config={"listen": [{"address": f"[::1]:{port}", "proxy_protocol": ["::1"]}]})
    with Client(port, "::1") as client:
        client.send(b"PROXY TCP6 2001:0DB8::0007 ::1 5000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.response().status == 200
    assert socket.inet_pton(socket.AF_INET6, there.requests[0].field("X-Forwarded-For")) == \
        socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    assert lb.total("refused") == 0
