"""vbdemo, the backend to try things on (issue 2, point 8): by itself, without a balancer."""
import json
import time

import pytest
from harness import Client, at_once, eventually, get, post


@pytest.fixture
def demo(demos):
    return demos(1)[0]


def json_of(response):
    assert response.status == 200 and response.field("Content-Type").startswith("application/json")
    return json.loads(response.text)


def test_it_says_its_name(demo):
    response = get(demo.port)
    assert response.text == "hello from a\n" and response.field("X-Backend") == "a"


def test_work_takes_as_long_as_it_is_told(demo):
    began = time.monotonic()
    assert json_of(get(demo.port, "/work?ms=200"))
    assert 0.19 < time.monotonic() - began < 5


def test_info_shows_the_request_as_it_came(demo):
    info = json_of(get(demo.port, "/info?x=1", [("X-Odd", 'quote " and \\'), ("X-Latin", "\xe4")]))
    assert info["name"] == "a" and info["pid"] == demo.process.pid
    assert info["request"]["target"] == "/info?x=1"
    assert ["X-Odd", 'quote " and \\'] in info["request"]["headers"]


def test_health_can_be_changed_at_run_time(demo):
    assert get(demo.port, "/health").status == 200
    demo.control("health=down")
    assert get(demo.port, "/health").status == 503
    assert get(demo.port, "/").status == 200
    demo.control("health=up")
    assert get(demo.port, "/health").status == 200


def test_echo_and_sink(demo):
    body = bytes(range(256)) * 1000
    with Client(demo.port) as client:
        assert client.request("POST", "/echo", body=body).body == body
        client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert client.response().body == b"abc"
        assert json_of(client.request("POST", "/sink", body=body))["received_bytes"] == len(body)


@pytest.mark.parametrize("query, length", [("n=0", 0), ("n=1", 1), ("n=100000", 100000), ("n=3MiB", 3 << 20)])
def test_bytes(demo, query, length):
    with Client(demo.port) as client:
        plain = client.get(f"/bytes?{query}")
        assert plain.field("Content-Length") == str(length) and len(plain.body) == length
        chunked = client.get(f"/bytes?{query}&chunked=1")
        assert chunked.chunks is not None and chunked.body == plain.body
        assert client.request("HEAD", f"/bytes?{query}").field("Content-Length") == str(length)


@pytest.mark.parametrize("code", [200, 204, 304, 404, 418, 503, 599])
def test_status(demo, code):
    with Client(demo.port) as client:
        assert client.get(f"/status?code={code}").status == code
        assert client.get("/").status == 200


def test_delay_fail_and_back_to_normal(demo):
    demo.control("delay=200ms&fail=50%")
    began = time.monotonic()
    assert sorted(get(demo.port).status for _ in range(4)) == [200, 200, 500, 500]
    assert time.monotonic() - began > 0.79
    demo.control("delay=1m")
    demo.control("normal=1")
    assert [get(demo.port).status for _ in range(4)] == [200] * 4


def test_hang(demo):
    demo.control("hang=on")
    with Client(demo.port) as client:
        client.start("GET", "/")
        assert get(demo.port, "/health").status == 200, "health is not asked the same way"
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.response()
    demo.control("hang=off")
    assert get(demo.port).status == 200


@pytest.mark.parametrize("query", ["nonsense=1", "health=maybe", "delay=soon", "fail=200%", "hang=x"])
def test_a_wrong_setting_is_refused_with_a_word(demo, query):
    response = post(demo.port, f"/control?{query}")
    assert response.status == 400 and len(response.body) > 5
    assert get(demo.port).status == 200


def test_unknown_paths_and_methods(demo):
    assert get(demo.port, "/none").status == 404
    response = get(demo.port, "/control")
    assert response.status == 405 and "POST" in response.field("Allow")


def test_blocking_serves_one_at_a_time(demos):
    """As a blocking server does: four requests of 100 ms take 400; without it they take 100."""
    blocking, = demos(1, "--blocking")
    began = time.monotonic()
    assert {r.status for r in at_once(4, lambda _: get(blocking.port, "/work?ms=100"))} == {200}
    assert time.monotonic() - began > 0.39


def test_without_blocking_requests_run_side_by_side(demo):
    began = time.monotonic()
    assert {r.status for r in at_once(20, lambda _: get(demo.port, "/work?ms=200"))} == {200}
    assert time.monotonic() - began < 2


def test_pipelined_requests_are_answered_in_order(demo):
    with Client(demo.port) as client:
        client.send(b"GET /work?ms=50 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "worked" in client.response().text and "hello" in client.response().text


def test_nonsense_is_refused(demo):
    for nonsense in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                     b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with Client(demo.port) as client:
            client.send(nonsense)
            assert client.response().status == 400
            assert client.is_closed()


def test_it_stops_at_once_whatever_it_does(demos):
    demo, = demos(1)
    clients = [Client(demo.port) for _ in range(3)]
    for client, target in zip(clients, ("/work?ms=60000", "/bytes?n=1GiB", "/")):
        client.start("GET", target)
    assert clients[2].response().status == 200
    demo.process.terminate()
    assert eventually(lambda: demo.process.poll() is not None, "it stops") and demo.process.returncode == 0
