"""The end of a client's connection: who has said that it sends no more is let go of at once, all others are heard out;
and the response arrives whole either way, however slowly it is read. Over TCP and over unix sockets."""
import fcntl
import os
import signal
import socket
import struct
import tempfile
import termios
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Client, eventually, go_on, is_stopped, open_files, reply

SOME = 48_000  # bytes that a worker reads at once
FEW = 200_000  # bytes that find room in the kernel, all of them
MANY = 10 << 20  # bytes that do not
LITTLE = 4096  # room at a client that does not read

CLOSE = [("Connection", "close")]


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture(params=["tcp", "unix"])
def listens(request, balancer):
    """listens(backend, workers) -> a balancer, and where its clients connect to"""
    if request.param == "tcp":
        def over_tcp(there, workers=1):
            lb = balancer(there, workers=workers)
            return lb, lb.port
        yield over_tcp
        return
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "vb.sock"
        yield lambda there, workers=1: (balancer(there, workers=workers, config={"listen": f"unix:{path}"}), path)


def content(n):
    return b"".join(b"%07d\n" % i for i in range(n // 8))


def sends(n):
    return reply(content(n))


def descriptors(lb):
    return sum(open_files(pid) for pid in lb.worker_pids())


def is_let_go(lb):
    return lb.total("connections") == 0


def expect_whole(client, n):
    """Read in small pieces, and with a clean end behind it."""
    assert client.head().status == 200
    length, crc = len(client._buffer), zlib.crc32(client._buffer)
    while data := client.socket.recv(16384):
        length, crc = length + len(data), zlib.crc32(data, crc)
    assert (length, crc) == (n, zlib.crc32(content(n)))


def all_read(sock):
    """Has the balancer taken all that was sent from this socket?"""
    if sock.family == socket.AF_UNIX:
        return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0] == 0
    ours, theirs = (f"0100007F:{address[1]:04X}" for address in (sock.getsockname(), sock.getpeername()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    not_acknowledged, = [row[4] for row in rows if row[1:3] == [ours, theirs]]
    not_read, = [row[4] for row in rows if row[1:3] == [theirs, ours]]
    return not_acknowledged.startswith("00000000:") and not_read.endswith(":00000000")


@contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield eventually(lambda: all(map(is_stopped, pids)), "the workers are stopped")
    finally:
        go_on(*pids)


def asks(version):
    return b"GET / HTTP/1.%d\r\nHost: x\r\n%s\r\n" % (version, b"Connection: close\r\n" if version else b"")


@pytest.mark.parametrize("version", [0, 1])
def test_who_says_close_is_let_go_of_at_once(listens, backend, workers, version):
    """Not in 2 s, for which those who may have more to send are heard out."""
    lb, port = listens(backend(), workers)
    before = descriptors(lb)
    with Client(port) as client:
        client.send(asks(version))
        assert client.response().text == "ok" and client.rest() == b""
        eventually(lambda: descriptors(lb) - before <= 1, "only the backend's connection is left", timeout=1)


@pytest.mark.parametrize("size", [FEW, MANY])
@pytest.mark.parametrize("version", [0, 1])
def test_who_says_close_and_reads_slowly_gets_all(listens, backend, workers, size, version):
    """What the kernel has taken stays on its way when the connection is closed under it; the rest is not forgotten."""
    lb, port = listens(backend(sends(size)), workers)
    with Client(port, receive_buffer=LITTLE) as client:
        client.send(asks(version))
        if size == FEW and not isinstance(port, Path):
            eventually(lambda: is_let_go(lb), "the balancer has nothing more to do with it")
        expect_whole(client, size)
    eventually(lambda: is_let_go(lb), "nothing is left")


def test_what_comes_behind_a_close_is_not_served_and_costs_nothing(listens, backend, workers):
    """With the request, or before its response, and then once more: a second response would be wrong, and an RST would
    cost the first one."""
    def answer(connection, request):
        connection.backend.released.wait(10)
        connection.send(sends(FEW))
    there = backend(answer)
    lb, port = listens(there, workers)
    second = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
    with Client(port, receive_buffer=LITTLE) as with_it, Client(port, receive_buffer=LITTLE) as behind:
        with_it.send(asks(1) + second)
        behind.send(asks(1))
        there.wait_requests(2)
        behind.send(second[:7])
        behind.send(second[7:])
        eventually(lambda: all_read(behind.socket), "what came behind has been read")
        there.released.set()
        if not isinstance(port, Path):
            eventually(lambda: is_let_go(lb), "the responses are on their way")
        for client in with_it, behind:
            client.send(second)
            expect_whole(client, FEW)
    assert [request.target for request in there.requests] == ["/", "/"]


def test_what_comes_behind_a_close_in_the_same_moment_costs_nothing(listens, backend, workers):
    """The worker finds both at once, the response first: it has not read what the client sent when the response is
    complete, and closing then would be an RST."""
    sent = threading.Event()

    def answer(connection, request):
        connection.backend.released.wait(10)
        connection.send(sends(SOME))
        sent.set()
    there = backend(answer)
    lb, port = listens(there, workers)
    with Client(port, receive_buffer=LITTLE) as client:
        client.send(asks(1))
        there.wait_requests(1)
        with stopped(lb.worker_pids()):
            there.released.set()
            assert sent.wait(10)
            client.send(b"\r\n")
        expect_whole(client, SOME)


def test_an_answer_of_our_own_to_one_who_says_close(listens, backend, workers):
    lb, port = listens(backend(), workers)
    before = descriptors(lb)
    for behind in b"", b"and more":
        with Client(port) as client:
            client.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n" + behind)
            assert client.response().status == 200 and client.rest() == b""
    eventually(lambda: descriptors(lb) <= before, "no descriptor is left")


@pytest.mark.parametrize("body", [b"Content-Length: 4\r\n\r\nbody",
                                  b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"])
def test_a_line_end_behind_the_content_costs_nothing(listens, backend, workers, body):
    """Some clients send one behind a POST (RFC 9112 2.2), perhaps only when the response is on its way: closing on it
    would be an RST."""
    lb, port = listens(backend(sends(FEW)), workers)
    with Client(port, receive_buffer=LITTLE) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + body)
        if not isinstance(port, Path):
            eventually(lambda: is_let_go(lb), "the response is on its way")
        client.send(b"\r\n")
        expect_whole(client, FEW)


def test_who_has_not_said_close_is_heard_out(balancer, backend, workers):
    """We close, because of a limit; the client may have sent its next request already."""
    lb = balancer(backend(sends(FEW)), workers=workers, config={"limits": {"requests_per_connection": 1}})
    with Client(lb.port, receive_buffer=LITTLE) as client:
        client.send(asks(1).replace(b"close", b"keep-alive"))
        eventually(lambda: is_let_go(lb), "the response is on its way")
        client.send(asks(1))
        expect_whole(client, FEW)
