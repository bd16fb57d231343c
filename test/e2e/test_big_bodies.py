"""Large bodies stream with back-pressure: a worker's memory stays bounded however large a body and however slow a peer.

VB_BIG_MIB sets the size; the default is what issue 2 asks for.
"""
import os
import threading
import time
import zlib
from pathlib import Path

import pytest
from harness import MEASURABLE, Client, eventually, memory_kib

MIB = 1024 * 1024
SIZE = int(os.environ.get("VB_BIG_MIB", "1024")) * MIB
BLOCK = os.urandom(MIB)
GROWTH_KIB = 12 * 1024  # the sanitizers' own bookkeeping included


def digest(size):
    crc = 0
    for _ in range(size // MIB):
        crc = zlib.crc32(BLOCK, crc)
    return crc


def send_blocks(send, size):
    for _ in range(size // MIB):
        send(BLOCK)


@pytest.fixture
def lb_with(balancer, backend):
    """lb_with(answer) -> (balancer, backend)"""
    def do(answer):
        there = backend(answer, early=True, record=False)
        return balancer(there, env=MEASURABLE), there
    return do


class Growth:
    """How much a process grows at its peak, in KiB, after a first small request has been through."""

    def __init__(self, lb):
        with Client(lb.port) as client:
            client.request("POST", "/warm-up", body=BLOCK)
        self.pid, = lb.worker_pids()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = memory_kib(self.pid)

    def __call__(self):
        return memory_kib(self.pid, "VmHWM") - self.before


def download(connection, request):
    if request.method == "POST":  # the warm-up
        connection.digest_body(request)
    size = MIB if request.method == "POST" else SIZE
    if request.target == "/chunked":
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        send_blocks(lambda block: connection.send(b"%x\r\n%b\r\n" % (len(block), block)), size)
        connection.send(b"0\r\n\r\n")
    else:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        send_blocks(connection.send, size)


def upload(connection, request):
    length, crc = connection.digest_body(request)
    body = b"%d %d" % (length, crc)
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def receive(client, crc=0, length=SIZE):
    while length > 0:
        data, client._buffer = client._buffer or client.socket.recv(262144), b""
        assert data != b"", f"{length} bytes are missing"
        crc = zlib.crc32(data, crc)
        length -= len(data)
    return crc


def settled(value):
    """The value once it has not changed for a while."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.02)
        if value() != last:
            last, since = value(), time.monotonic()
    return last


def test_a_large_download_takes_bounded_memory(lb_with):
    lb, _ = lb_with(download)
    growth = Growth(lb)
    with Client(lb.port) as client:
        client.start("GET", "/")
        assert client.head().field("Content-Length") == str(SIZE)
        assert receive(client) == digest(SIZE)
    assert growth() < GROWTH_KIB


def test_a_large_chunked_download_takes_bounded_memory(lb_with):
    lb, _ = lb_with(download)
    growth = Growth(lb)
    with Client(lb.port) as client:
        client.start("GET", "/chunked")
        response, crc, length = client.head(), 0, 0
        assert response.field("Transfer-Encoding") == "chunked"
        while size := int(client._until(b"\r\n"), 16):
            crc = zlib.crc32(client._exactly(size), crc)
            length += size
            assert client._exactly(2) == b"\r\n"
    assert (length, crc) == (SIZE, digest(SIZE))
    assert growth() < GROWTH_KIB


def test_a_large_upload_takes_bounded_memory(lb_with):
    lb, _ = lb_with(upload)
    growth = Growth(lb)
    with Client(lb.port) as client:
        client.start("POST", "/", [("Content-Length", SIZE)])
        send_blocks(client.send, SIZE)
        assert client.response().text == f"{SIZE} {digest(SIZE)}"
    assert growth() < GROWTH_KIB


def test_a_slow_reader_slows_the_backend_down(lb_with):
    lb, there = lb_with(download)
    growth = Growth(lb)
    with Client(lb.port, receive_buffer=65536) as client:
        client.start("GET", "/")
        client.head()
        eventually(lambda: len(there.connections) and there.connections[-1].sent > MIB, "the download has begun")
        stalled = settled(lambda: there.connections[-1].sent)
        assert stalled < SIZE / 2, "the balancer takes it all in while the client does not read"
        assert growth() < GROWTH_KIB
        assert receive(client) == digest(SIZE)
    assert growth() < GROWTH_KIB


def test_a_slow_backend_slows_the_client_down(lb_with):
    go = threading.Event()

    def answer(connection, request):
        if request.target != "/warm-up":
            go.wait(60)
        upload(connection, request)
    lb, there = lb_with(answer)
    growth = Growth(lb)
    with Client(lb.port) as client:
        sent = [0]

        def send(block):
            client.send(block)
            sent[0] += len(block)
        client.socket.settimeout(60)
        client.start("POST", "/", [("Content-Length", SIZE)])
        sender = threading.Thread(target=send_blocks, args=(send, SIZE), daemon=True)
        sender.start()
        eventually(lambda: sent[0] > 0, "the upload has begun")
        assert settled(lambda: sent[0]) < SIZE / 2, "the balancer takes it all in while the backend does not read"
        assert growth() < GROWTH_KIB
        go.set()
        assert client.response().text == f"{SIZE} {digest(SIZE)}"
        sender.join()
    assert growth() < GROWTH_KIB


def test_many_slow_readers_take_bounded_memory_each(lb_with):
    lb, there = lb_with(download)
    growth = Growth(lb)
    clients = [Client(lb.port, receive_buffer=4096) for _ in range(20)]
    for client in clients:
        client.start("GET", "/")
    settled(lambda: sum(connection.sent for connection in there.connections))
    assert growth() < 20 * 1024, "KiB for 20 stalled downloads"
    for client in clients:
        client.close()
    lb.wait_idle()
