"""Clients and backends that do everything wrong at the same time, and a witness for what must stay right.

Every request carries a token of its own, and every good response must carry the same one, in its head and all through
its body: so a response that reaches the wrong client, or a body that is cut, mixed up or passed off as whole, is seen.
The order of things is random, from a seed that the output names: VB_CHAOS_SEED=N runs it again.
"""
import os
import random
import signal
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from harness import Client, Malformed, Truncated, at_once, eventually, open_files, reply

SEED = int(os.environ.get("VB_CHAOS_SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("VB_CHAOS_ROUNDS", "150"))
BROKEN = (Truncated, ConnectionError)


def body_of(token, length):
    return (token.encode() * (length // len(token) + 1))[:length]


def misbehave(connection, request):
    """Does what the target asks for: /KIND?token=T&length=N."""
    url = urlsplit(request.target)
    query = {key: value[0] for key, value in parse_qs(url.query).items()}
    kind, token, length = url.path[1:], query.get("token", "?"), int(query.get("length", "0"))
    assert request.body == b"" or request.body == body_of(token, len(request.body)), "a request's body is mixed up"
    body = body_of(token, length)
    whole = reply(body, headers=[("X-Token", token)])
    parts = [body[i:i + 777] for i in range(0, length, 777)]
    chunked = f"HTTP/1.1 200 OK\r\nX-Token: {token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunked += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    if kind == "plain":
        connection.send(whole)
    elif kind == "chunked":
        connection.send(chunked)
    elif kind == "pieces":
        for i in range(0, len(whole), 1 + len(whole) // 9):
            connection.send(whole[i:i + 1 + len(whole) // 9])
            time.sleep(0.001)
    elif kind == "interim":
        connection.send(b"HTTP/1.1 103 Early Hints\r\nX-Token: wrong\r\n\r\n" + whole)
    elif kind == "close":
        connection.send(f"HTTP/1.1 200 OK\r\nX-Token: {token}\r\nConnection: close\r\n\r\n".encode() + body)
        connection.close()
    elif kind == "surplus":
        connection.send(whole + reply("poison", headers=[("X-Token", "poison")]))
    elif kind == "reset":
        connection.reset()
    elif kind == "cut":
        connection.send(random.choice((whole, chunked))[:-3])
        connection.close()
    elif kind == "garbage":
        connection.send(b"\x00\x01garbage\r\n\r\n")
    elif kind == "hang":
        connection.hang()
        connection.close()


GOOD = ["plain", "chunked", "pieces", "interim", "close", "surplus"]
BAD = ["reset", "cut", "garbage"]


class Person:
    """One client with its own random ways."""

    def __init__(self, lb, number):
        self.lb, self.number, self.rng, self.client = lb, number, random.Random(SEED * 1000 + number), None
        self.count = 0

    def request(self, kind):
        """(bytes, token, length) of a random request."""
        self.count += 1
        token = f"{self.number}.{self.count}."
        length = self.rng.choice([0, 1, 10, 1000, 20000, 300000])
        head = f"/{kind}?token={token}&length={length} HTTP/1.1\r\nHost: x\r\n"
        sent = body_of(token, self.rng.choice([1, 100, 5000, 200000]))
        how = self.rng.choice(["GET", "GET", "length", "chunked"])
        if how == "GET":
            return f"GET {head}\r\n".encode(), token, length
        if how == "length":
            return f"POST {head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent, token, length
        size = self.rng.choice([1000, 50000])
        pieces = [sent[i:i + size] for i in range(0, len(sent), size)]
        data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        return f"POST {head}Transfer-Encoding: chunked\r\n\r\n".encode() + data, token, length

    def send(self, data):
        for _ in range(self.rng.choice([0, 0, 1, 5])):
            cut = self.rng.randrange(len(data) + 1)
            self.client.send(data[:cut])
            data = data[cut:]
        self.client.send(data)

    def send_aside(self, data):
        try:
            self.send(data)
        except OSError:
            pass  # whoever reads the responses notices

    def expect_good(self, token, length):
        response = self.client.response()
        assert response.status == 200, (response.status, response.text)
        assert response.field("X-Token") == token, (response.field("X-Token"), token)
        assert response.body == body_of(token, length)
        if response.closes:
            self.leave()

    def leave(self):
        if self.client:
            self.client.close()
        self.client = None

    def step(self):
        self.client = self.client or Client(self.lb.port)
        what = self.rng.choice(["good"] * 6 + ["bad", "pipeline", "abort", "abort later", "nonsense", "half close"])
        if what == "good":
            data, token, length = self.request(self.rng.choice(GOOD))
            self.send(data)
            self.expect_good(token, length)
        elif what == "pipeline":
            requests = [self.request(self.rng.choice(GOOD)) for _ in range(self.rng.randrange(2, 5))]
            sender = threading.Thread(target=self.send_aside, args=(b"".join(r[0] for r in requests),), daemon=True)
            sender.start()
            for _, token, length in requests:
                self.expect_good(token, length)
            sender.join()
        elif what == "half close":
            data, token, length = self.request(self.rng.choice(GOOD))
            self.send(data)
            self.client.half_close()
            self.expect_good(token, length)
            self.leave()
        elif what == "bad":
            data, token, length = self.request(self.rng.choice(BAD))
            self.expect_failure(data)
        else:
            data, _, _ = self.request(self.rng.choice(GOOD + ["hang"]))
            if what == "nonsense":
                data = b"GET /plain?token=any&length=10 HTTP/1.1\r\nHost: x\r\nX-Field: value\r\n\r\n"
                at = self.rng.randrange(len(data))
                data = data[:at] + bytes([self.rng.randrange(256)]) + data[at + 1:]
            elif what == "abort":
                data = data[:self.rng.randrange(len(data))]
            try:
                self.client.send(data)
                if self.rng.random() < 0.5:
                    self.client.socket.recv(10) if what == "abort later" and b"/hang" not in data[:20] else None
            except ConnectionError:
                pass
            self.rng.choice([self.client.reset, self.client.close])()
            self.client = None

    def expect_failure(self, data):
        try:
            self.send(data)
            assert self.client.response().status == 502
        except (*BROKEN, Malformed):
            pass
        self.leave()


@pytest.fixture
def town(balancer, backend):
    print(f"VB_CHAOS_SEED={SEED}")
    random.seed(SEED)
    backends = [backend(misbehave, record=False) for _ in range(3)]
    pool = {"keepalive": {"timeout": "1s"}, "timeouts": {"response": "3s"}}  # ends what a client left without a reset
    return balancer(backends, workers=2, pool=pool, config={"shutdown": {"grace": "5s"}})


def all_is_quiet(lb):
    lb.wait_idle()
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "all clients are gone")


def test_nobody_gets_what_is_not_for_him(town):
    lb = town
    pids = lb.worker_pids()
    files = [open_files(pid) for pid in pids]

    def live(number):
        person = Person(lb, number)
        for _ in range(ROUNDS):
            person.step()
        person.leave()
    at_once(8, live)
    all_is_quiet(lb)
    for pid, before in zip(pids, files):
        eventually(lambda: open_files(pid) <= before, "the descriptors are given back")
    assert lb.worker_pids() == pids, "a worker died"


def test_nobody_gets_what_is_not_for_him_while_workers_die(town):
    lb = town
    over = threading.Event()

    def live(number):
        person = Person(lb, number)
        for _ in range(ROUNDS):
            try:
                person.step()
            except BROKEN:  # its worker was killed
                person.leave()
        person.leave()

    def murder():
        rng, killed = random.Random(SEED), 0
        while not over.wait(0.3) and killed < 4:
            alive = lb.worker_pids()
            if alive:
                os.kill(rng.choice(alive), signal.SIGKILL)
                killed += 1
    murderer = threading.Thread(target=murder, daemon=True)
    murderer.start()
    at_once(8, live)
    over.set()
    murderer.join()
    lb.wait_workers()
    all_is_quiet(lb)
