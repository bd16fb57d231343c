"""The PROXY protocol: a proxy in front says who the client is before its first byte (haproxy.org)."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest
from harness import TIMEOUT, Client, eventually, free_port, get, reply

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY, LOCAL = 0x21, 0x20
TCP4, TCP6, UDP4, UNIX, UNSPEC = 0x11, 0x21, 0x12, 0x31, 0x00


def v1(source, family=None, to=None):
    v6 = ":" in source
    return f"PROXY {family or ('TCP6' if v6 else 'TCP4')} {source} {to or ('::2' if v6 else '10.0.0.2')} 5000 80\r\n" \
        .encode()


def v2(source="", command=PROXY, family=None, tail=b"", length=None, body=None):
    v6 = ":" in source
    if body is None and source:
        net = socket.AF_INET6 if v6 else socket.AF_INET
        body = socket.inet_pton(net, source) + socket.inet_pton(net, "::2" if v6 else "10.0.0.2") + \
            struct.pack(">HH", 5000, 80)
    body = (body or b"") + tail
    if family is None:
        family = (TCP6 if v6 else TCP4) if source else UNSPEC
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if length is None else length) + body


def tlv(kind, value):
    return struct.pack(">BH", kind, len(value)) + value


TLVS = tlv(0x01, b"h2") + tlv(0x02, b"www.example") + tlv(0x04, bytes(7)) + tlv(0x05, b"unique") + \
    tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3")) + tlv(0xea, b"\r\n\r\nGET / HTTP/1.1\r\n")

# name: (header, the client's address as the backend must see it; None: that of the connection)
HEADERS = {
    "v1 TCP4": (v1("203.0.113.7"), "203.0.113.7"),
    "v1 TCP4, long": (v1("255.255.255.255", to="255.255.255.255").replace(b"5000 80", b"65535 65535"),
                      "255.255.255.255"),
    "v1 TCP6": (v1("2001:db8::7"), "2001:db8::7"),
    "v1 TCP6, long": (v1("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", to="ffff:f" * 8)
                      .replace(b"ffff:f" * 8, b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
                      .replace(b"5000 80", b"65535 65535"), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN with more": (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    "v2 TCP4": (v2("203.0.113.7"), "203.0.113.7"),
    "v2 TCP6": (v2("2001:db8::7"), "2001:db8::7"),
    "v2 TCP4 with TLVs": (v2("203.0.113.7", tail=TLVS), "203.0.113.7"),
    "v2 TCP6 with TLVs": (v2("2001:db8::7", tail=TLVS), "2001:db8::7"),
    "v2 LOCAL": (v2(command=LOCAL), None),
    "v2 LOCAL with an address": (v2("203.0.113.7", command=LOCAL, tail=TLVS), None),
    "v2 of no family": (v2(tail=TLVS), None),
    "v2 UNIX": (v2(family=UNIX, body=b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")), None),
}
every_header = pytest.mark.parametrize("header, address", HEADERS.values(), ids=HEADERS)


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def behind(balancer, backend):
    """behind(proxy_protocol=True, answer=None, ...) -> (balancer that expects the header, backend)"""
    def do(proxy_protocol=True, answer=None, **options):
        port, there = free_port(), backend(answer)
        config = {"listen": [{"address": f"127.0.0.1:{port}", "proxy_protocol": proxy_protocol}],
                  **options.pop("config", {})}
        return balancer(there, port=port, config=config, **options), there
    return do


def said(port, data, source=None):
    """All that comes back; the connection must end by itself."""
    with Client(port, source=source) as client:
        try:
            client.send(data)
            return client.rest()
        except ConnectionError:
            return client._buffer


# ---- the header ------------------------------------------------------------------------------------------------------


@every_header
def test_the_backend_learns_the_address(behind, header, address, workers):
    """Header and requests in one segment; it counts for all requests of the connection."""
    lb, there = behind(workers=workers)
    with Client(lb.port) as client:
        client.send(header + GET + GET)
        assert [client.response().status, client.response().status] == [200, 200]
        assert client.get("/later").status == 200
    assert [request.field("X-Forwarded-For") for request in there.requests] == [address or "127.0.0.1"] * 3
    assert there.received.count(b"GET /") == 3 and b"PROXY" not in there.received and b"QUIT" not in there.received


@every_header
def test_it_may_come_in_two_pieces_split_anywhere(behind, header, address):
    """One connection for each place; a request of another client shows that the first piece has been read by then."""
    lb, there = behind(answer=lambda c, r: c.send(reply(r.field("X-Forwarded-For"))))
    data = header + GET
    places = range(1, len(header) + 4)
    if len(places) > 150:
        places = [*places[:40], *places[40:-20:7], *places[-20:]]

    def sync():
        with Client(lb.port) as other:
            for _ in range(2):
                other.send((v2(command=LOCAL) if _ == 0 else b"") + GET)
                assert other.response().status == 200
    clients = [Client(lb.port) for _ in places]
    sync()
    for client, place in zip(clients, places):
        client.send(data[:place])
    sync()
    for client, place in zip(clients, places):
        client.send(data[place:])
    for client, place in zip(clients, places):
        assert client.response().text == (address or "127.0.0.1"), f"split at {place}"
        client.close()


@every_header
def test_it_may_come_byte_by_byte(behind, header, address):
    lb, there = behind(answer=lambda c, r: c.send(reply(r.field("X-Forwarded-For"))))
    with Client(lb.port) as client:
        for i in range(len(header)):
            client.send(header[i:i + 1])
            if i % 8 == 0:
                time.sleep(0.0005)
        client.send(GET)
        assert client.response().text == (address or "127.0.0.1")


def test_it_comes_once(behind):
    """What looks like one behind a request is no request."""
    lb, there = behind()
    with Client(lb.port) as client:
        client.send(v1("203.0.113.7") + GET)
        assert client.response().status == 200
        client.send(v1("203.0.113.8") + GET)
        assert client.response().status == 400
        assert client.is_closed()
    assert len(there.requests) == 1
    assert b"HTTP/1.1 400" in said(lb.port, v1("203.0.113.7") + v1("203.0.113.8") + GET)


def test_the_request_behind_it_may_have_a_body(behind):
    lb, there = behind(answer=lambda c, r: c.send(reply(r.body)))
    with Client(lb.port) as client:
        client.send(v2("203.0.113.7") + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000)
        assert client.response().body == b"x" * 200000


@pytest.mark.parametrize("size", [1000, 20000, 65535 - 12])
def test_much_behind_the_address(behind, size):
    """Up to 65,535 bytes are a version 2 header; the limits of heads are not meant."""
    lb, there = behind()
    tail = tlv(0xee, os.urandom(size - 3))
    with Client(lb.port) as client:
        client.send(v2("203.0.113.7", tail=tail) + GET)
        assert client.response().status == 200
    assert there.requests[0].field("X-Forwarded-For") == "203.0.113.7"


# ---- no header, or a wrong one ---------------------------------------------------------------------------------------

WRONG = {
    "a request": GET,
    "a request in pieces": GET[:10],
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a line feed": b"\n",
    "small letters": b"proxy TCP4 203.0.113.7 10.0.0.2 5000 80\r\n" + GET,
    "v1 without addresses": b"PROXY TCP4\r\n" + GET,
    "v1 with one address": b"PROXY TCP4 203.0.113.7\r\n" + GET,
    "v1 without ports": b"PROXY TCP4 203.0.113.7 10.0.0.2\r\n" + GET,
    "v1 with one port": b"PROXY TCP4 203.0.113.7 10.0.0.2 5000\r\n" + GET,
    "v1 with too much": b"PROXY TCP4 203.0.113.7 10.0.0.2 5000 80 x\r\n" + GET,
    "v1 with a port too high": b"PROXY TCP4 203.0.113.7 10.0.0.2 65536 80\r\n" + GET,
    "v1 with a negative port": b"PROXY TCP4 203.0.113.7 10.0.0.2 -1 80\r\n" + GET,
    "v1 with a port that is none": b"PROXY TCP4 203.0.113.7 10.0.0.2 5x 80\r\n" + GET,
    "v1 with IPv6 as TCP4": b"PROXY TCP4 2001:db8::7 ::2 5000 80\r\n" + GET,
    "v1 with IPv4 as TCP6": b"PROXY TCP6 203.0.113.7 10.0.0.2 5000 80\r\n" + GET,
    "v1 with a bad address": b"PROXY TCP4 203.0.113.256 10.0.0.2 5000 80\r\n" + GET,
    "v1 with an octal address": b"PROXY TCP4 0203.0.113.7 10.0.0.2 5000 80\r\n" + GET,
    "v1 with two spaces": b"PROXY TCP4  203.0.113.7 10.0.0.2 5000 80\r\n" + GET,
    "v1 of an unknown family": b"PROXY TCP5 203.0.113.7 10.0.0.2 5000 80\r\n" + GET,
    "v1 that ends with LF": b"PROXY TCP4 203.0.113.7 10.0.0.2 5000 80\n" + GET,
    "v1 with a bare CR": b"PROXY TCP4 203.0.113.7 10.0.0.2 5000 80\r" + GET,
    "v1 without end": b"PROXY UNKNOWN " + b"x" * 200,
    "v1 that is too long": b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n" + GET,
    "v2 with a broken signature": b"\r\n\r\n\0\r\nQUIX\n" + v2("203.0.113.7")[12:] + GET,
    "v2 of version 1": v2("203.0.113.7", command=0x11) + GET,
    "v2 of version 3": v2("203.0.113.7", command=0x31) + GET,
    "v2 with an unknown command": v2("203.0.113.7", command=0x22) + GET,
    "v2 with no room for TCP4": v2(family=TCP4, body=bytes(11)) + GET,
    "v2 with no room for TCP6": v2(family=TCP6, body=bytes(35)) + GET,
    "v2 of TCP4 that is empty": v2(family=TCP4) + GET,
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_without_it_the_connection_just_ends(behind, data):
    """Whoever sends that does not speak what we speak: no byte comes back that could be taken for an answer."""
    lb, there = behind(config={"timeouts": {"header": "500ms"}})
    assert said(lb.port, data) == b""
    assert there.connections == [] and lb.vbctl("status")["requests"] == 0
    eventually(lambda: lb.total("connections") == 0, "it is gone")
    with Client(lb.port) as client:
        client.send(v1("203.0.113.7") + GET)
        assert client.response().status == 200


def test_a_wrong_one_is_logged(behind):
    lb, _ = behind()
    assert said(lb.port, GET, source="127.0.0.9") == b""
    line, = lb.wait_log("PROXY")
    assert "127.0.0.9" in line


@pytest.mark.parametrize("data", [b"", b"P", b"PROXY TCP4 203.0.113.7", SIGNATURE, v2("203.0.113.7")[:-1],
                                  v2("203.0.113.7", length=65535), v2("203.0.113.7", length=15)],
                         ids=["nothing", "a byte", "v1", "a signature", "v2", "v2, long", "v2 without its TLV"])
def test_a_header_that_does_not_end_is_not_waited_for_for_ever(behind, data):
    lb, there = behind(config={"timeouts": {"header": "500ms"}})
    began = time.monotonic()
    assert said(lb.port, data) == b""
    assert 0.4 < time.monotonic() - began < 5
    assert there.connections == []


def test_a_header_that_trickles_is_not_waited_for_either(behind):
    lb, _ = behind(config={"timeouts": {"header": "1s"}})
    began = time.monotonic()
    with Client(lb.port) as client:
        client.trickle(v2("203.0.113.7", tail=tlv(0xee, bytes(2000))), 0.1)
        assert client._buffer == b""
    assert 0.9 < time.monotonic() - began < 5


def test_the_time_for_a_head_is_for_both_together(behind):
    lb, _ = behind(config={"timeouts": {"header": "2s"}})
    header, began = v1("203.0.113.7"), time.monotonic()
    with Client(lb.port) as client:
        client.trickle(header[:26], 0.05)
        client.send(header[26:-1])
        whole = time.monotonic()
        client.trickle(header[-1:], 0.2)  # on its own, and then for a while nothing
        client.trickle(GET[:-2] + b"X" * 100, 0.05)
        assert b" 408 " in client._buffer
    assert time.monotonic() - began > 1.9
    assert time.monotonic() - whole < 1.9, "it began anew behind the PROXY header"


# ---- who sends it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["127.0.0.2", ["127.0.0.2/32"], ["10.0.0.0/8", "127.0.0.2/31"]], ids=str)
def test_only_those_who_are_listed_send_it(behind, setting, workers):
    lb, there = behind(setting, workers=workers)
    with Client(lb.port, source="127.0.0.2") as client:
        client.send(v1("203.0.113.7") + GET)
        assert client.response().status == 200
    assert get(lb.port, source="127.0.0.9").status == 200
    assert [request.field("X-Forwarded-For") for request in there.requests] == ["203.0.113.7", "127.0.0.9"]
    assert said(lb.port, GET, source="127.0.0.2") == b""
    for header in (v1("203.0.113.7"), v2("203.0.113.7")):
        assert said(lb.port, header + GET, source="127.0.0.9").startswith(b"HTTP/1.1 400 "), "anybody could lie"
    assert len(there.requests) == 2


def test_each_listener_has_its_own(balancer, backend):
    ports, there = [free_port(), free_port()], backend()
    balancer(there, port=ports[0], config={"listen": [
        {"address": f"127.0.0.1:{ports[0]}", "proxy_protocol": True}, f"127.0.0.1:{ports[1]}"]})
    assert get(ports[1]).status == 200
    with Client(ports[0]) as client:
        client.send(v1("203.0.113.7") + GET)
        assert client.response().status == 200
    assert said(ports[0], GET) == b""


def test_off_is_off(behind):
    lb, there = behind(False)
    assert get(lb.port).status == 200
    assert said(lb.port, v1("203.0.113.7") + GET).startswith(b"HTTP/1.1 400 ")


# ---- what the address is good for ------------------------------------------------------------------------------------


def test_limits_of_connections_count_it(behind, workers):
    lb, _ = behind(workers=workers, config={"limits": {"connections_per_ip": 2}})
    clients = []

    def status(header):
        clients.append(Client(lb.port))
        clients[-1].send(header + GET)
        return clients[-1].response().status
    one, two, own = v1("203.0.113.7"), v2("203.0.113.8"), v2(command=LOCAL)
    assert [status(header) for header in (one, two, one, two, own, own)] == [200] * 6
    assert [status(header) for header in (one, two, own, v2("203.0.113.7"))] == [429] * 4
    assert lb.total("connections_refused") == 4
    clients[0].close()
    eventually(lambda: lb.total("connections") == 5, "one is gone")
    assert [status(two), status(one)] == [429, 200]
    for client in clients:
        client.close()


def test_a_killed_worker_gives_its_places_back(behind, workers):
    lb, _ = behind(workers=workers, config={"limits": {"connections_per_ip": 4}})
    clients = [Client(lb.port) for _ in range(4)]
    for client in clients:
        client.send(v2("203.0.113.7") + GET)
        assert client.response().status == 200
    pids = lb.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=pids)
    again = [Client(lb.port) for _ in range(5)]
    for client in again:
        client.send(v2("203.0.113.7") + GET)
    assert sorted(client.response().status for client in again) == [200] * 4 + [429]
    for client in clients + again:
        client.close()


def test_messages_name_it(behind):
    lb, _ = behind(answer=b"nonsense\r\n\r\n")
    with Client(lb.port) as client:
        client.send(v1("2001:db8::7") + GET)
        assert client.response().status == 502
    assert "2001:db8::7: 502" in lb.wait_log(": 502 ")[0]
    with Client(lb.port) as client:
        client.send(v1("203.0.113.7") + b"nonsense\r\n\r\n")
        assert client.response().status == 400
    assert "203.0.113.7: 400" in lb.wait_log(": 400: ")[0]


def test_it_can_be_a_proxy_that_is_trusted(behind):
    """A proxy behind the one that sends the header."""
    lb, there = behind(config={"trusted_proxies": ["203.0.113.0/24"]})
    for source in ("203.0.113.7", "198.51.100.7"):
        with Client(lb.port) as client:
            client.send(v1(source) + b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
            assert client.response().status == 200
    assert [request.field("X-Forwarded-For") for request in there.requests] == \
        ["192.0.2.1, 203.0.113.7", "198.51.100.7"]


def test_a_mapped_address_is_the_same_client(behind):
    """::ffff:203.0.113.7 is 203.0.113.7: it has one limit, not two."""
    lb, _ = behind(config={"limits": {"connections_per_ip": 1}})
    with Client(lb.port) as one, Client(lb.port) as two:
        one.send(v1("203.0.113.7") + GET)
        assert one.response().status == 200
        two.send(v2("::ffff:203.0.113.7") + GET)
        assert two.response().status == 429


# ---- real senders ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sends_it(behind):
    lb, there = behind()
    result = subprocess.run(["curl", "-sS", "--noproxy", "*", "--haproxy-protocol", "--interface", "127.0.0.8",
                             f"http://127.0.0.1:{lb.port}/a", f"http://127.0.0.1:{lb.port}/b"],
                            capture_output=True, timeout=TIMEOUT)
    assert (result.returncode, result.stdout) == (0, b"okok"), result.stderr
    assert [request.field("X-Forwarded-For") for request in there.requests] == ["127.0.0.8"] * 2


HAPROXY = """
global
    maxconn 100
defaults
    mode {mode}
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen front
    bind 127.0.0.1:{port}
    server lb 127.0.0.1:{to} {send} check inter 100ms
"""


@pytest.mark.skipif(shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None, reason="haproxy is not installed")
@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_haproxy_sends_it(behind, tmp_path, mode, send):
    """Its health checks send LOCAL."""
    lb, there = behind()
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(mode=mode, port=port, to=lb.port, send=send))
    process = subprocess.Popen([shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-db", "-q", "-f",
                                tmp_path / "haproxy.cfg"], stderr=subprocess.DEVNULL)
    try:
        with eventually(lambda: connected(port), "haproxy listens") as client:
            assert [client.get(f"/{i}").status for i in range(5)] == [200] * 5
        with Client(port, source="127.0.0.8") as client:
            assert client.get("/eight").status == 200
    finally:
        process.terminate()
        process.wait(TIMEOUT)
    assert [request.field("X-Forwarded-For") for request in there.requests] == ["127.0.0.1"] * 5 + ["127.0.0.8"]
    assert lb.total("refused") == 0


def connected(port):
    try:
        return Client(port)
    except ConnectionRefusedError:
        return None


def test_trusted_clients_behind_it_have_no_limit_by_address(behind):
    """The header names a trusted proxy: neither its own address nor that of the balancer before us is counted."""
    lb, _ = behind(config={"trusted_proxies": ["10.0.0.0/8"], "limits": {"connections_per_ip": 2}})
    clients = [Client(lb.port) for _ in range(5)]
    for i, client in enumerate(clients):
        client.send(v1(f"10.0.0.{i % 2}") + GET)
        assert client.response().status == 200
    for client in clients:
        client.close()
