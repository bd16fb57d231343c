"""What a worker reads in one turn of its loop: it reads all of that before it deals with any, and writes behind that.

Here the worker is stopped while things come, so that it finds them all at once.
"""
import fcntl
import os
import signal
import socket
import struct
import tempfile
import termios
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import TIMEOUT, Client, eventually, get, is_stopped, reply

POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@contextmanager
def all_at_once(lb):
    worker, = lb.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield eventually(lambda: is_stopped(worker), "the worker is stopped")
    finally:
        os.kill(worker, signal.SIGCONT)


def has_arrived(*socks):
    """All that was sent from these, ends included, waits in the other side's kernel."""
    info = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104) for sock in socks]
    return all(struct.unpack_from("I", each, 24)[0] == 0 for each in info)  # tcpi_unacked


@pytest.mark.parametrize("news", [POISON, b""], ids=["bytes", "end"])
def test_news_of_an_idle_connection_are_heard_before_it_is_used(balancer, backend, news):
    """They have come together with a response, behind which its client's next request waits. The response comes first,
    so the idle connection has been read, but not dealt with, when the next request needs one."""
    begun, go, idle, slow = threading.Event(), threading.Event(), [], []

    def answer(connection, request):
        if request.target != "/slow":
            idle.append(connection.socket)
            connection.send(reply("hello"))
            return
        slow.append(connection.socket)
        begun.set()
        go.wait(TIMEOUT)
        connection.send(reply("slow", headers=[("Connection", "close")]))
        if news:
            idle[0].send(news)
        else:
            idle[0].shutdown(socket.SHUT_WR)
        begun.clear()
    there = backend(answer)
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(TIMEOUT)
        assert get(lb.port).body == b"hello"
        with all_at_once(lb):
            go.set()
            eventually(lambda: not begun.is_set() and has_arrived(idle[0], slow[0]), "both have come")
        assert client.response().body == b"slow"
        assert client.response().body == b"hello"
    row = lb.backend(there)
    assert len(there.connections) == 3 and row["retries"] == row["errors"] == 0


@pytest.mark.parametrize("kind", ["whole", "beginning", "end"])
def test_responses_that_leave_together_are_not_mixed_up(balancer, backend, kind):
    """The first one whole or in pieces. Once with few before, so that what is kept for the turn does not begin where it
    did."""
    body = [f"{i:02}" * 200 for i in range(24)]

    class Turn:
        def __init__(self, n):
            self.n = n
            self.come, self.sent = threading.Barrier(n + 1), threading.Barrier(n + 1)
            self.go, self.first = threading.Event(), threading.Event()
    turns = [Turn(10), Turn(24)]

    def answer(connection, request):
        i, turn = (int(part) for part in request.target[1:].split("/"))
        turn, whole = turns[turn], reply(body[i])
        cut = len(whole) if i > 0 or kind == "whole" else len(whole) - 100
        if i == 0 and kind == "end":
            connection.send(whole[:cut])
        turn.come.wait(TIMEOUT)
        (turn.go if i == 0 else turn.first).wait(TIMEOUT)
        connection.send(whole[cut:] if i == 0 and kind == "end" else whole[:cut])
        turn.first.set()
        turn.sent.wait(TIMEOUT)
        if i == 0 and kind == "beginning":
            connection.send(whole[cut:])
    lb = balancer(backend(answer))
    clients = [Client(lb.port) for _ in body]
    for number, turn in enumerate(turns):
        for i, client in enumerate(clients[:turn.n]):
            client.start("GET", f"/{i}/{number}")
        turn.come.wait(TIMEOUT)
        with all_at_once(lb):
            turn.go.set()
            turn.sent.wait(TIMEOUT)
        assert [client.response().text for client in clients[:turn.n]] == body[:turn.n]
    for client in clients:
        client.close()


def test_requests_that_leave_together_have_their_time_outs(balancer, backend):
    together = threading.Barrier(2)

    def answer(connection, request):
        if request.target == "/hang":
            connection.hang()
        together.wait(TIMEOUT)
        connection.send(reply("hello"))
    there = backend(answer)
    lb = balancer(there, pool={"timeouts": {"response": "300ms"}, "retry": "off", "outlier": "off"})
    with Client(lb.port) as one, Client(lb.port) as other:
        for target, status in (("/", 200), ("/hang", 504)):
            with all_at_once(lb):
                one.start("GET", target)
                other.start("GET", target)
            assert [one.response().status, other.response().status] == [status] * 2
    assert len(there.connections) == 2


def waiting(sock, which):
    return struct.unpack("i", fcntl.ioctl(sock, which, b"\0" * 4))[0]


def test_who_reads_none_of_his_small_responses_gets_no_more_of_them(balancer, backend):
    """They leave together with others'; the one that finds no more room in the kernel stops him like any other."""
    there = backend(reply("x" * 3500))
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "vb.sock"
        lb = balancer(there, config={"listen": f"unix:{path}", "timeouts": {"body": "2s"}})
        with Client(path) as one, Client(path) as other:
            clients = {"/one": one, "/other": other}
            sizes = []
            for _ in range(60):
                with all_at_once(lb):
                    for target, client in clients.items():
                        client.start("GET", target)
                eventually(lambda: not any(waiting(client.socket, termios.TIOCOUTQ) for client in clients.values()) and
                           lb.vbctl("status")["in_flight"] == 0, "they have been read, and answered")
                sizes.append(waiting(one.socket, termios.FIONREAD))
            for target, client in clients.items():
                served = [request.target for request in there.requests].count(target)
                assert served == waiting(client.socket, termios.FIONREAD) // sizes[0] + 1 < 60
            lb.wait_log("stopped reading its response", count=2)
