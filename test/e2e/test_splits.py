"""However a request is cut into pieces, the verdict is the same: the cases of hostile.py in two writes, for each place
where the cut can be, and byte by byte.

The second part is sent when the balancer has read the first one (wire.Diag), so these are two reads there, never one.
Many connections to one balancer go in step: a batch sends its first parts, then its second ones, then reads all
answers. Behind each case follows a valid request that ends the connection; so every connection ends by itself.
"""
import itertools
import selectors
import socket
import time

from harness import TIMEOUT, Backend, Balancer, Malformed, Truncated
from hostile import CASES
from test_rules_requests import heard
from wire import Diag, Ledger, Recorded

BATCH = 200  # connections at a time; twice as many descriptors
LONG = 700   # bytes; a longer case is cut only near its ends and at some places between

_numbers = itertools.count(1)


class Shot:
    """One case on one connection, in parts."""

    def __init__(self, case, cuts):
        number = next(_numbers)
        self.mark, self.after = b"m%07d" % number, b"m%07d" % next(_numbers)
        self.case = case.named(number)
        self.cuts = cuts
        edges = [0, *cuts, len(self.case.data)]
        self.parts = [self.case.data[a:b] for a, b in itertools.pairwise(edges)]
        if not case.fin:
            self.parts[-1] += b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % self.after
        self.received = b""
        self.broken = False  # it ended before all was sent

    def __str__(self):
        where = f"cut at {self.cuts[0]}" if len(self.cuts) == 1 else "byte by byte"
        return f"{self.case.name} ({where}): {self.case.data[:200]!r}"

    def connect(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, turn):
        try:
            if turn < len(self.parts) and not self.broken:
                self.socket.sendall(self.parts[turn])
            if turn == len(self.parts) - 1 and self.case.fin:
                self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.broken = True

    def read(self):
        """False when the balancer has closed."""
        try:
            data = self.socket.recv(262144)
        except ConnectionError:
            data = b""
        self.received += data
        return data != b""

    def objections(self, ledger):
        """What is wrong with what both ends saw."""
        case, client = self.case, Recorded(self.received)
        method = "HEAD" if case.data.startswith(b"HEAD ") else "GET"
        try:
            response = client.head()
            refused = response.status in case.refused
            if not refused:
                client.body(response, method)
            elif method != "HEAD":
                client.body(response)
            goes_on = not refused and not case.fin and not response.closes
            if goes_on:
                after = client.response()
                if after.status != 200 or after.body != self.after:
                    return [f"the next request got {after.status} {after.body!r}"]
        except (Truncated, Malformed) as error:
            return [f"{type(error).__name__}: {error}, after {self.received[:200]!r}"]
        found = [] if client.left == b"" or (refused and method == "HEAD") else [f"more: {client.left!r}"]
        reached, followed = ledger.messages.get(self.mark, []), ledger.messages.get(self.after, [])
        if len(followed) != goes_on:
            found.append(f"what follows reached the backend {len(followed)} times")
        if refused or case.answered:
            if not refused and response.status != case.answered:
                found.append(f"{response.status}: {response.body!r}")
            return found + [f"the backend got {message.raw!r}" for message in reached]
        if response.status != 200 or case.passed is None or response.body != (b"" if method == "HEAD" else self.mark):
            return found + [f"{response.status}: {response.body!r}"]
        if len(reached) != 1:
            return found + [f"the backend got it {len(reached)} times"]
        return found + case.passed.objections(reached[0])


def fire(lb, shots):
    """Sends a batch and takes all answers."""
    for shot in shots:
        shot.connect(lb.port)
    try:
        with Diag() as diag:
            for turn in range(max(len(shot.parts) for shot in shots)):
                for shot in shots:
                    shot.send(turn)
                deadline = time.monotonic() + TIMEOUT
                waiting = [shot for shot in shots if turn < len(shot.parts) - 1]
                while waiting:
                    assert time.monotonic() < deadline, f"not read: {waiting[0]}"
                    waiting = [shot for shot in waiting if not diag.consumed(shot.socket)]
        with selectors.DefaultSelector() as selector:
            for shot in shots:
                selector.register(shot.socket, selectors.EVENT_READ, shot)
            deadline = time.monotonic() + TIMEOUT
            while selector.get_map():
                assert time.monotonic() < deadline, "not answered: " + ", ".join(
                    str(key.data) for key in list(selector.get_map().values())[:5])
                for key, _ in selector.select(TIMEOUT):
                    if not key.data.read():
                        selector.unregister(key.fileobj)
    finally:
        for shot in shots:
            shot.socket.close()


def places(case):
    """Where to cut."""
    n = len(case.data)
    if n <= LONG:
        return range(1, n)
    return sorted({*range(1, 40), *range(n - 20, n), *range(40, n - 20, n // 10), *range(16384 - 3, min(16384 + 3, n))})


def run(tmp_path, shots):
    """All shots through one balancer; fails with the first few objections."""
    wrong, marks, may_be_cut = {}, set(), set()
    with Backend(heard) as there:
        pools = {"web": {"backends": [there], "health": "off"}}
        ledger = Ledger(there)
        with Balancer(tmp_path, pools, workers=2) as lb:
            while batch := list(itertools.islice(shots, BATCH)):
                may_be_cut |= {shot.mark for shot in batch if shot.case.begins}
                marks |= {mark for shot in batch for mark in (shot.mark, shot.after)}
                fire(lb, batch)
                wrong.setdefault("parts", []).extend(ledger.objections(may_be_cut))
                for shot in batch:
                    wrong.setdefault(shot.case.name, []).extend(f"{shot}: {text}" for text in shot.objections(ledger))
        wrong["parts"] += ledger.objections(may_be_cut)
    wrong = {name: found for name, found in wrong.items() if found}
    assert not wrong, f"{len(wrong)} cases:\n" + "\n".join(f"{len(found)} x {found[0]}" for found in wrong.values())
    assert set(ledger.messages) <= marks and all(len(found) == 1 for found in ledger.messages.values())


def test_cut_in_two_at_every_place(tmp_path):
    run(tmp_path, (Shot(case, [place]) for case in CASES for place in places(case)))


def test_byte_by_byte(tmp_path):
    run(tmp_path, (Shot(case, range(1, len(case.data))) for case in CASES if len(case.data) <= LONG))


def test_the_parts_arrive_apart():
    """The instrument itself: it sees what a peer has not read, and when it has."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(
            listener.getsockname()) as client, Diag() as diag:
        client.sendall(b"abc")
        assert diag.unread_by_peer(client) == 3 and not diag.consumed(client)
        server, _ = listener.accept()
        assert server.recv(2) == b"ab" and not diag.consumed(client)
        assert server.recv(2) == b"c" and diag.consumed(client)
        client.sendall(b"d")
        assert not diag.consumed(client)
        server.close()
        assert diag.consumed(client)

