"""Balancing is exact over all workers together, also while requests come and go, after a crash and after a reload.

What the balancer says it has in flight is compared with what the backends have: Held counts there.
"""
import os
import random
import signal
import threading
from collections import Counter
from itertools import groupby

import pytest
from harness import Client, at_once, eventually, go_on, is_stopped, reply

WORKERS = 4
AT_ONCE = 200


# ---- what may happen meanwhile ---------------------------------------------------------------------------------------


def nothing(lb):
    pass


def kill_one(lb):
    """kill -9, of a worker that has clients."""
    row = max(lb.worker_rows(), key=lambda row: row["connections"])
    assert row["connections"] > 0
    os.kill(row["pid"], signal.SIGKILL)
    lb.wait_workers(without=[row["pid"]])


def reload(lb):
    """The workers of the old generation keep the requests that they have: the new ones count those too."""
    lb.reload()


@pytest.fixture(params=[nothing, kill_one, reload], ids=lambda function: function.__name__)
def happen(request):
    return request.param


# ---- turns -----------------------------------------------------------------------------------------------------------


def one_after_the_other(lb, clients, n):
    """Who serves n requests, each sent when the one before was answered, over one of these connections."""
    served = ""
    for _ in range(n):
        i = random.randrange(len(clients))
        if clients[i].was_closed():
            clients[i].close()
            clients[i] = Client(lb.port)
        served += clients[i].get().text
    return served


def test_weights_hold_in_any_window(balancer, backend, lifetimes, workers, happen):
    """5:1:1 in any 7 requests in a row, whichever workers took them, and without a burst."""
    weighted = [{"address": backend(reply(name)), "weight": weight} for name, weight in zip("abc", [5, 1, 1])]
    lb = balancer(weighted, workers=workers)
    clients = [Client(lb.port) for _ in range(16)]
    lifetimes.callback(lambda: [client.close() for client in clients])
    served = one_after_the_other(lb, clients, 69)
    assert all(row["requests"] > 0 for row in lb.worker_rows()), "one worker has taken none"
    happen(lb)
    lb.wait_old_gone()  # with the connections that nobody used
    served += one_after_the_other(lb, clients, 71)
    for i in range(len(served) - 6):
        assert Counter(served[i:i + 7]) == {"a": 5, "b": 1, "c": 1}, f"requests {i}..{i + 6} of {served}"
    longest = max(len(list(run)) for name, run in groupby(served) if name == "a")
    assert longest <= 4, f"the heavy one is served in a burst: {served}"


# ---- requests in flight ----------------------------------------------------------------------------------------------


class Held:
    """An answer: requests stay until the test lets them go, or their connection ends."""

    def __init__(self):
        self._lock = threading.Lock()
        self._connections = []

    def __call__(self, connection, request):
        with self._lock:
            self._connections.append(connection)

    @property
    def count(self):
        with self._lock:
            self._connections = [connection for connection in self._connections if connection.is_open]
            return len(self._connections)

    def let_go(self, n):
        """Answers the n that have been here longest."""
        with self._lock:
            going, self._connections = self._connections[:n], self._connections[n:]
        for connection in going:
            connection.send(reply())


class Four:
    """Four equal backends that hold requests, and a balancer with as many workers in front of them."""

    def __init__(self, balancer, backend):
        self.held = [Held() for _ in range(4)]
        backends = [backend(answer) for answer in self.held]
        self.lb = balancer(backends, workers=WORKERS, pool={"balance": "least_conn"})
        self.clients = []

    def here(self):
        """Requests at each backend."""
        return [held.count for held in self.held]

    def in_flight(self):
        """... as the balancer sees it."""
        return [row["in_flight"] for row in self.lb.vbctl("backends")["backends"]]

    def start(self, n):
        """n requests at once, each over a connection of its own, so that all workers get some."""
        if n == 0:
            return
        clients = [Client(self.lb.port) for _ in range(n)]
        self.clients += clients
        at_once(n, lambda i: clients[i].start("GET", "/", [("Connection", "close")]))

    def wait(self, n):
        """Until n requests are there, and the balancer counts so many."""
        eventually(lambda: sum(self.here()) == n, f"{n} requests are at the backends")
        eventually(lambda: sum(self.in_flight()) == n, f"{n} requests are in flight")

    def wait_settled(self):
        """Until the balancer counts what is there, after a crash."""
        eventually(lambda: self.in_flight() == self.here(), "the balancer counts what the backends have")

    def let_go(self, n):
        """n of each backend are answered."""
        for held in self.held:
            held.let_go(n)

    def close(self):
        self.let_go(AT_ONCE)
        for client in self.clients:
            client.close()


@pytest.fixture
def four(balancer, backend):
    it = Four(balancer, backend)
    yield it
    it.close()


def spread(counts):
    return max(counts) - min(counts)


def look_while_moving(four, going=0, coming=0):
    """So many go from each backend, or so many come, while somebody looks. No more than one for each backend are on
    their way: so what he sees is exact, though he does not see all counts at one instant."""
    total = sum(four.here()) - len(four.held) * going + coming
    four.let_go(going)
    four.start(coming)
    seen = four.in_flight()
    assert spread(seen) <= 2, seen
    four.wait(total)


def assert_even(four, n):
    four.wait(n)
    assert spread(four.in_flight()) <= 1 and spread(four.here()) <= 1, (four.in_flight(), four.here())


def test_least_conn_is_even_while_requests_come_and_go(four, happen):
    for _ in range(10):
        look_while_moving(four, coming=4)
    four.start(AT_ONCE - 40)
    assert_even(four, AT_ONCE)
    happen(four.lb)
    four.wait_settled()
    four.start(AT_ONCE - sum(four.here()))
    assert_even(four, AT_ONCE)
    for _ in range(20):
        look_while_moving(four, going=1)
        look_while_moving(four, coming=4)
    assert_even(four, AT_ONCE)
    for _ in range(10):
        look_while_moving(four, going=1)
    four.let_go(AT_ONCE)
    four.lb.wait_idle()


def client_of_each_worker(four):
    """Connections, one for each worker."""
    clients = {}

    def connect():
        before = {row["pid"]: row["connections"] for row in four.lb.worker_rows()}
        four.clients.append(Client(four.lb.port))
        four.clients[-1].start("GET", "/")
        four.wait(1)
        pid, = [row["pid"] for row in four.lb.worker_rows() if row["connections"] > before[row["pid"]]]
        clients.setdefault(pid, four.clients[-1])
        four.let_go(1)
        assert four.clients[-1].response().status == 200
        four.lb.wait_idle()
        return len(clients) == WORKERS
    eventually(connect, "each worker has a client")
    return clients


def test_workers_that_tie_do_not_herd(four, stopped):
    """Four requests that four workers take at the same moment, when nothing is in flight, go to four backends."""
    clients = client_of_each_worker(four)
    for _ in range(20):
        stopped(*clients)
        for pid in clients:
            eventually(lambda: is_stopped(pid), "it is stopped")  # noqa: B023
        for client in clients.values():
            client.start("GET", "/")
        go_on(*clients)
        four.wait(4)
        assert four.here() == [1, 1, 1, 1] == four.in_flight()
        four.let_go(1)
        assert [client.response().status for client in clients.values()] == [200] * 4
        four.lb.wait_idle()
