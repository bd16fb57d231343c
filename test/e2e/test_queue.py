"""max_connections, and the queue of those who wait for their turn: fair, bounded, and nobody is forgotten in it."""
import os
import signal
import threading
import time
from collections import Counter

import pytest
from harness import TIMEOUT, Client, Load, Truncated, at_once, eventually, get, go_on, reply, run, web

ONE_AND_FOUR = pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")
SOON = 1  # second: within this the others go on when a worker has died


class Gate:
    """An answer for several backends: holds each request until it is let go, and sees how many are there at a time.

    order   the targets, as they came
    peak    by backend, the most that were there at a time
    """

    def __init__(self):
        self.order, self.here, self.peak = [], Counter(), Counter()
        self._lock = threading.Lock()
        self._passes = threading.Semaphore(0)

    def __call__(self, connection, request):
        name = connection.backend.address
        with self._lock:
            self.order.append(request.target)
            self.here[name] += 1
            self.peak[name] = max(self.peak[name], self.here[name])
        self._passes.acquire(timeout=3 * TIMEOUT)
        with self._lock:
            self.here[name] -= 1
        connection.send(reply(request.target))

    def let_go(self, n=1):
        self._passes.release(n)

    def wait(self, n, timeout=TIMEOUT):
        eventually(lambda: len(self.order) >= n, f"{n} requests at the backends, not only {self.order}", timeout)


@pytest.fixture
def gate(lifetimes):
    gate = Gate()
    lifetimes.callback(gate.let_go, 1000)
    return gate


@pytest.fixture
def limited(balancer, backend, gate, lifetimes):
    """limited(*limits, ...) -> a balancer in front of backends at the gate that have these max_connections"""
    def make(*limits, queue=None, **options):
        there = [backend(gate) for _ in limits]
        pool = {"queue": queue or {"timeout": "30s"}, **options.pop("pool", {})}
        lb = balancer([{"address": b, "max_connections": n} for b, n in zip(there, limits)], pool=pool, **options)
        lb.there = there
        lifetimes.callback(gate.let_go, 1000)  # before the balancer stops
        return lb
    return make


@pytest.fixture
def begin(lifetimes, gate):
    """begin(lb, target, ...) -> a client with this request, which has arrived at a backend, or waits in line"""
    def do(lb, target, **options):
        before = len(gate.order) + lb.total("queued")
        client = lifetimes.enter_context(Client(lb.port))
        client.start(options.pop("method", "GET"), target, **options)
        eventually(lambda: len(gate.order) + lb.total("queued") > before, f"{target} is there")
        return client
    return do


def statuses(clients):
    return [client.response().status for client in clients]


def queued_by(lb):
    """pid -> how many requests have waited in that worker"""
    return {row["pid"]: row["queued"] for row in lb.worker_rows()}


# ---- order -----------------------------------------------------------------------------------------------------------


@ONE_AND_FOUR
def test_a_backend_never_gets_more_than_it_may(limited, gate, workers):
    lb = limited(2, 2, workers=workers)
    clients = [Client(lb.port) for _ in range(40)]
    at_once(40, lambda i: clients[i].start("GET", f"/{i}"))
    gate.wait(4)
    eventually(lambda: lb.total("queued") == 36, "the others wait")
    assert sorted(lb.backend(b)["in_flight"] for b in lb.there) == [2, 2]
    gate.let_go(40)
    assert statuses(clients) == [200] * 40
    assert sorted(gate.order) == sorted(f"/{i}" for i in range(40))
    assert list(gate.peak.values()) == [2, 2]
    for client in clients:
        client.close()
    lb.wait_idle()
    assert lb.total("queue_timeouts") == lb.total("overloaded") == 0


@ONE_AND_FOUR
def test_who_came_first_goes_first(limited, gate, begin, workers):
    lb = limited(1, 1, workers=workers)
    clients = [begin(lb, f"/{i}") for i in range(50)]
    for n in range(3, 51):
        gate.let_go()
        gate.wait(n)
    gate.let_go(2)
    assert statuses(clients) == [200] * 50
    came = [int(target[1:]) for target in gate.order]
    overtakers = [n for i, n in enumerate(came) if n > min(came[i:])]
    # On a busy machine a worker may not run for so long that others take it for one that hangs.
    assert len(overtakers) <= (0 if workers == 1 else 4), came


@ONE_AND_FOUR
def test_who_comes_anew_stands_behind_those_who_wait(limited, gate, begin, lifetimes, workers):
    """Also the one who has just been served, whose next request is there in the moment in which the place comes free."""
    lb = limited(1, workers=workers)
    one = lifetimes.enter_context(Client(lb.port))
    one.send(b"".join(b"GET /one/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(3)))
    gate.wait(1)
    others = [begin(lb, f"/{i}") for i in range(4)]
    gate.let_go(7)
    assert statuses(others) == [200] * 4
    assert [one.response().text for _ in range(3)] == ["/one/0", "/one/1", "/one/2"]
    assert gate.order == ["/one/0", "/0", "/1", "/2", "/3", "/one/1", "/one/2"]


def test_places_do_not_lie_idle(limited, gate):
    """Short requests of many clients: turns go from hand to hand, also between workers, and do not wait for the tick."""
    lb = limited(1, workers=4)
    gate.let_go(100000)
    with Load(lb.port, clients=16) as load:
        load.wait(200)
        began = time.monotonic()
        load.wait(1000)
        rate = 1000 / (time.monotonic() - began)
    assert load.failures() == []
    assert gate.peak.total() == 1
    assert sum(row["queued"] > 100 for row in lb.worker_rows()) > 1, "they wait in several workers"
    assert rate > 350, f"{rate:.0f} requests a second; ticks alone make some 200"


def test_without_limits_nobody_waits(balancer, demos):
    lb = balancer(demos(2), workers=2)
    assert at_once(20, lambda i: get(lb.port, "/work?ms=100").status) == [200] * 20
    assert lb.total("queued") == 0


def test_a_limit_beside_a_backend_without_one(limited, gate, lifetimes):
    lb = limited(1, 0)
    clients = [lifetimes.enter_context(Client(lb.port)) for _ in range(6)]
    for client in clients:
        client.start("GET", "/")
    gate.wait(6)
    assert sorted(gate.peak.values()) == [1, 5]
    assert lb.total("queued") == 0


# ---- it ends ---------------------------------------------------------------------------------------------------------


@ONE_AND_FOUR
def test_a_turn_that_does_not_come(limited, gate, begin, workers):
    lb = limited(1, workers=workers, queue={"timeout": "1200ms"})
    first = begin(lb, "/first")
    began = time.monotonic()
    with Client(lb.port) as second:
        answer = second.get("/second")
        assert 1.1 < time.monotonic() - began
        assert answer.status == 503 and answer.field("Retry-After") == "2"
        assert "waited too long" in answer.text
        lb.wait_log(r'503 "GET /second HTTP/1.1": queue.timeout is over')
        assert (lb.total("queued"), lb.total("queue_timeouts"), lb.total("failed")) == (1, 1, 0)
        gate.let_go(2)
        assert first.response().status == 200
        assert second.get("/third").status == 200, "its connection goes on"
    assert gate.order == ["/first", "/third"]


@ONE_AND_FOUR
def test_the_line_is_bounded(limited, gate, begin, workers):
    lb = limited(2, workers=workers, pool={"circuit_breaker": {"max_pending": 5}})
    for _ in range(2):
        served = [begin(lb, "/"), begin(lb, "/")]
        clients = [Client(lb.port) for _ in range(18)]
        before = lb.total("overloaded")
        at_once(18, lambda i: clients[i].start("GET", "/"))
        eventually(lambda: lb.total("overloaded") == before + 13, "5 wait, and the others are refused")
        pids = lb.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for client in served + clients:
            client.close()
        gate.let_go(2)
        lb.wait_workers(without=pids)
        lb.wait_idle()
    with Client(lb.port) as client:
        gate.let_go()
        assert client.get().status == 200


def test_who_finds_the_line_full_is_told_at_once(limited, gate, begin):
    lb = limited(1, pool={"circuit_breaker": {"max_pending": 1}})
    there = [begin(lb, "/a"), begin(lb, "/b")]
    answer = get(lb.port, "/c")
    assert answer.status == 503 and answer.field("Retry-After") == "1"
    lb.wait_log(r"a limit of circuit_breaker is reached: max_pending")
    gate.let_go(2)
    assert statuses(there) == [200, 200]


def test_a_full_line_keeps_the_place_of_who_has_his_turn(limited, gate, begin, lifetimes):
    """He needs a place for his connection too, and it is the one he has."""
    lb = limited(1, pool={"circuit_breaker": {"max_pending": 1}, "keepalive": {"idle": 0}})
    first = begin(lb, "/0")
    second = begin(lb, "/1")
    stop = threading.Event()

    def push():
        while not stop.is_set():
            get(lb.port, "/pushed")
    pushing = [threading.Thread(target=push, daemon=True) for _ in range(4)]
    for thread in pushing:
        thread.start()
    lifetimes.callback(stop.set)
    eventually(lambda: lb.total("overloaded") > 50, "others want its place")
    gate.let_go()
    gate.wait(2)
    assert gate.order == ["/0", "/1"]
    stop.set()
    gate.let_go(100)
    assert statuses([first, second]) == [200, 200]
    for thread in pushing:
        thread.join(TIMEOUT)


@ONE_AND_FOUR
def test_off(limited, gate, begin, workers):
    lb = limited(1, 1, workers=workers, queue="off")
    there = [begin(lb, "/a"), begin(lb, "/b")]
    with Client(lb.port) as client:
        answer = client.get("/c")
        assert answer.status == 503 and answer.field("Retry-After") == "1" and "busy" in answer.text
        assert lb.total("overloaded") == 1 and lb.total("queued") == 0
        gate.let_go(3)
        assert statuses(there) == [200, 200]
        assert client.get("/d").status == 200


# ---- clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("n", [1, 3], ids=["one", "pipelined"])
def test_a_client_that_leaves_gives_up_its_place(limited, gate, begin, how, n):
    lb = limited(1, pool={"circuit_breaker": {"max_pending": 1}})
    first = begin(lb, "/first")
    gone = Client(lb.port)
    gone.send(b"GET /gone HTTP/1.1\r\nHost: x\r\n\r\n" * n)
    eventually(lambda: lb.total("queued") == 1, "it waits")
    getattr(gone, how)()
    eventually(lambda: lb.total("client_aborts") == 1, "it has been seen")
    last = begin(lb, "/last")
    gate.let_go(2)
    assert statuses([first, last]) == [200, 200]
    assert gate.order == ["/first", "/last"]
    lb.wait_idle()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("rest", [b"Content-Length: 9999\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\nffff\r\nabc"],
                         ids=["length", "chunked"])
def test_a_client_that_leaves_within_its_body_gives_up_its_place(limited, gate, begin, how, rest):
    lb = limited(1)
    begin(lb, "/first")
    gone = Client(lb.port)
    gone.send(b"POST /gone HTTP/1.1\r\nHost: x\r\n" + rest)
    eventually(lambda: lb.vbctl("stats")["pools"][0]["pending_now"] == 1, "it waits")
    getattr(gone, how)()
    eventually(lambda: lb.vbctl("stats")["pools"][0]["pending_now"] == 0, "its place is given up", timeout=5)


def test_a_request_behind_one_that_waits(limited, gate, begin, lifetimes):
    lb = limited(1)
    first = begin(lb, "/0")
    client = lifetimes.enter_context(Client(lb.port))
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in (1, 2, 3)))
    eventually(lambda: lb.total("queued") == 1, "it waits")
    gate.let_go(4)
    assert first.response().text == "/0"
    assert [client.response().text for _ in range(3)] == ["/1", "/2", "/3"]


@ONE_AND_FOUR
@pytest.mark.parametrize("size", [0, 10, 60_000, 3_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("buffer", ["64KiB", "1KiB"])
def test_a_body_waits_too(balancer, backend, workers, size, framing, buffer):
    def answer(connection, request):
        if request.target == "/slow":
            connection.backend.released.wait(TIMEOUT)
        connection.send(reply(str(len(request.body)) + request.trailers.decode()))
    there = backend(answer)
    lb = balancer({"address": there.address, "max_connections": 1}, workers=workers, pool={"retry": {"buffer": buffer}})
    body = os.urandom(size)
    with Client(lb.port) as first, Client(lb.port) as second:
        first.start("GET", "/slow")
        there.wait_requests(1)
        if framing == "length":
            message = b"Content-Length: %d\r\n\r\n" % size + body
        else:
            half = size // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
            message = b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Sum: 7\r\n\r\n"
        sending = threading.Thread(target=second.send, args=(b"POST /body HTTP/1.1\r\nHost: x\r\n" + message,))
        sending.start()
        eventually(lambda: lb.total("queued") == 1, "it waits")
        there.released.set()
        assert first.response().status == 200
        answer = second.response("POST")
        sending.join()
    assert answer.status == 200 and answer.text.startswith(str(size))
    assert there.requests[1].body == body


def test_a_body_in_pieces_while_it_waits(limited, gate, begin, lifetimes):
    lb = limited(1)
    first = begin(lb, "/0")
    client = lifetimes.enter_context(Client(lb.port))
    client.send(b"PUT /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    eventually(lambda: lb.total("queued") == 1, "it waits")
    client.send(b"01234")
    gate.let_go()
    assert first.response().status == 200
    client.send(b"56789")
    gate.wait(2)
    gate.let_go()
    assert client.response("PUT").text == "/1"
    assert lb.there[0].requests[1].body == b"0123456789"


def test_expect_continue_while_it_waits(balancer, backend, lifetimes):
    def answer(connection, request):
        if request.target == "/slow":
            connection.backend.released.wait(TIMEOUT)
        if request.field("Expect"):
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.read_body(request)
        connection.send(reply(request.body))
    there = backend(answer, early=True)
    lb = balancer({"address": there.address, "max_connections": 1})
    first, second = (lifetimes.enter_context(Client(lb.port)) for _ in range(2))
    first.start("GET", "/slow")
    there.wait_requests(1)
    second.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    eventually(lambda: lb.total("queued") == 1, "it waits")
    assert len(there.requests) == 1
    there.released.set()
    assert first.response().status == 200
    assert second.head().status == 100
    second.send(b"hello")
    assert second.response("POST").text == "hello"


def test_a_request_without_host_waits(limited, gate, begin, lifetimes):
    lb = limited(1)
    first = begin(lb, "/0")
    client = lifetimes.enter_context(Client(lb.port))
    client.send(b"GET /1 HTTP/1.0\r\n\r\n")
    eventually(lambda: lb.total("queued") == 1, "it waits")
    gate.let_go(2)
    assert first.response().status == client.response().status == 200
    assert lb.there[0].requests[1].field("Host") == lb.there[0].address


# ---- workers ---------------------------------------------------------------------------------------------------------


def holder_of(lb):
    """The pid of the worker that has the only request at a backend."""
    pid, = [row["pid"] for row in lb.worker_rows() if row["in_flight"] == 1]
    return pid


@ONE_AND_FOUR
def test_the_places_of_a_killed_worker_go_to_those_who_wait(limited, gate, begin, workers):
    lb = limited(1, workers=workers)
    held = begin(lb, "/held")
    holder = holder_of(lb)
    waiting = [begin(lb, f"/{i}") for i in range(8)]
    lost = queued_by(lb)[holder]
    assert lost < 8 or workers == 1
    os.kill(holder, signal.SIGKILL)
    if workers > 1:
        gate.wait(2, SOON)
    gate.let_go(10)
    assert held.is_closed()
    lb.wait_workers(without=[holder])
    assert sorted(answers_or_ends(waiting)) == [False] * lost + [True] * (8 - lost)
    assert get(lb.port).status == 200


def answers_or_ends(clients):
    """True for each that is served, False where the connection ends."""
    for client in clients:
        try:
            yield client.response().status == 200
        except (Truncated, ConnectionError):
            yield False


def begin_elsewhere(lb, begin, pid, target):
    """A request that waits in another worker than this one, and those that came to this one meanwhile."""
    missed = []
    while True:
        before = queued_by(lb)[pid]
        client = begin(lb, target)
        if queued_by(lb)[pid] == before:
            return client, missed
        missed.append(client)


def test_a_killed_worker_leaves_the_line(limited, gate, begin):
    """... and with it the first of all who wait."""
    lb = limited(1, workers=4)
    held = begin(lb, "/held")
    holder = holder_of(lb)
    first, missed = begin_elsewhere(lb, begin, holder, "/first")
    victim, = [pid for pid, n in queued_by(lb).items() if n > 0 and pid != holder]
    for client in missed:
        client.close()
    last, missed = begin_elsewhere(lb, begin, victim, "/last")
    os.kill(victim, signal.SIGKILL)
    assert first.is_closed()
    gate.let_go()
    gate.wait(2, SOON)
    assert gate.order[1] == "/last"
    gate.let_go()
    assert statuses([held, last]) == [200, 200]


def test_a_worker_that_hangs_with_the_first_in_line(limited, gate, begin, stopped):
    lb = limited(1, workers=4, config={"watchdog": "off"})
    held = begin(lb, "/held")
    holder = holder_of(lb)
    first, missed = begin_elsewhere(lb, begin, holder, "/first")
    hung, = [pid for pid, n in queued_by(lb).items() if n > 0 and pid != holder]
    for client in missed:
        client.close()
    others = []
    while len(others) < 5:
        client, missed = begin_elsewhere(lb, begin, hung, f"/{len(others)}")
        others.append(client)
        for client in missed:
            client.close()
    stopped(hung)
    gate.let_go(6)
    gate.wait(6, SOON)
    assert sorted(gate.order[1:]) == [f"/{i}" for i in range(5)]
    assert statuses([held, *others]) == [200] * 6
    go_on(hung)
    gate.let_go(1)
    assert first.response().status == 200


# ---- changes ---------------------------------------------------------------------------------------------------------


def brief(connection, request):
    """Long enough that requests pile up."""
    time.sleep(0.005)
    connection.send(reply())


@ONE_AND_FOUR
def test_limits_change_under_load(balancer, backend, workers):
    there = [backend(brief), backend(brief)]
    limits = [{"address": b, "max_connections": 1} for b in there]
    lb = balancer(limits, workers=workers, pool={"queue": {"timeout": "20s"}})
    with Load(lb.port, clients=12) as load:
        for n in (4, 1, 0, 2):
            load.wait(50)
            lb.reload(pools=web([{"address": b, "max_connections": n} for b in there], queue={"timeout": "20s"}))
            load.wait(100)
    assert load.failures() == []
    assert lb.total("queue_timeouts") == 0
    lb.wait_old_gone()
    lb.wait_idle()


def test_a_higher_limit_is_used_at_once(limited, gate, begin):
    lb = limited(1, workers=4)
    clients = [begin(lb, f"/{i}") for i in range(5)]
    lb.reload(pools=web([{"address": lb.there[0], "max_connections": 4}], queue={"timeout": "30s"}))
    gate.wait(4, SOON)
    time.sleep(0.1)
    assert len(gate.order) == 4
    gate.let_go(5)
    assert statuses(clients) == [200] * 5


@ONE_AND_FOUR
def test_a_lower_limit_is_kept(limited, gate, begin, workers):
    lb = limited(3, workers=workers)
    clients = [begin(lb, f"/{i}") for i in range(6)]
    lb.reload(pools=web([{"address": lb.there[0], "max_connections": 1}], queue={"timeout": "30s"}))
    gate.let_go(2)
    eventually(lambda: sum(gate.here.values()) == 1, "two have left")
    assert len(gate.order) == 3
    gate.peak.clear()
    gate.let_go(4)
    assert statuses(clients) == [200] * 6
    assert list(gate.peak.values()) == [1]


@ONE_AND_FOUR
def test_those_who_wait_are_served_during_a_stop(limited, gate, begin, workers):
    lb = limited(1, workers=workers)
    clients = [begin(lb, f"/{i}") for i in range(6)]
    lb.ask_to_stop()
    gate.let_go(6)
    assert statuses(clients) == [200] * 6
    lb.wait()


@ONE_AND_FOUR
@pytest.mark.parametrize("command", ["maint", "remove"])
def test_the_only_backend_is_taken_away(limited, gate, begin, workers, command):
    lb = limited(1, workers=workers)
    served = begin(lb, "/served")
    waiting = [begin(lb, f"/{i}") for i in range(12)]
    began = time.monotonic()
    assert run("vbctl", "--name", lb.name, command, f"web/{lb.there[0].address}").returncode == 0
    answers = [client.response() for client in waiting]
    assert time.monotonic() - began < SOON
    assert [answer.status for answer in answers] == [503] * 12
    assert lb.total("unavailable") == 12
    gate.let_go()
    assert served.response().status == 200
    assert gate.order == ["/served"]


@ONE_AND_FOUR
def test_those_who_wait_go_to_the_backend_that_is_left(limited, gate, begin, workers):
    lb = limited(1, 1, workers=workers)
    clients = [begin(lb, f"/{i}") for i in range(6)]
    gone, left = lb.there
    assert run("vbctl", "--name", lb.name, "maint", f"web/{gone.address}").returncode == 0
    gate.let_go(6)
    assert statuses(clients) == [200] * 6
    assert (len(gone.requests), len(left.requests)) == (1, 5)


def test_a_further_try_waits_too(balancer, backend, gate, lifetimes):
    bad, good = backend(lambda connection, request: connection.reset()), backend(gate)
    lb = balancer([bad, {"address": good, "max_connections": 1}], pool={"queue": {"timeout": "30s"}})
    lifetimes.callback(gate.let_go, 100)
    clients = [lifetimes.enter_context(Client(lb.port)) for _ in range(3)]
    for client in clients:
        client.start("GET", "/")
    eventually(lambda: lb.total("queued") == 2, "two have failed at the one and wait for the other")
    gate.let_go(3)
    assert statuses(clients) == [200] * 3
    assert len(good.requests) == 3 and gate.peak[good.address] == 1


def test_retry_total_bounds_the_wait(balancer, backend, gate, lifetimes):
    bad, good = backend(lambda connection, request: connection.reset()), backend(gate)
    pool = {"queue": {"timeout": "30s"}, "retry": {"total": "300ms"}, "outlier": "off"}
    lb = balancer([bad, {"address": good, "max_connections": 1}], pool=pool)
    lifetimes.callback(gate.let_go, 100)
    with Client(lb.port) as first, Client(lb.port) as second:
        run("vbctl", "--name", lb.name, "drain", f"web/{bad.address}")
        first.start("GET", "/")
        gate.wait(1)
        run("vbctl", "--name", lb.name, "ready", f"web/{bad.address}")
        assert second.get().status == 504
        lb.wait_log(r"504 .* retry.total is over")
        assert (lb.total("queued"), len(bad.requests)) == (1, 1)
        gate.let_go()
        assert first.response().status == 200
    lb.wait_idle()


# ---- sticky ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sticky(balancer, backend, lifetimes):
    """sticky(workers) -> a balancer, the gates of its two backends (one place each), a cookie that binds to the first"""
    def make(workers):
        gates = [Gate(), Gate()]
        lb = balancer([{"address": backend(gate), "max_connections": 1} for gate in gates], workers=workers,
                      pool={"queue": {"timeout": "30s"}, "sticky": {"cookie": "vb"}})
        for gate in gates:
            lifetimes.callback(gate.let_go, 1000)
            gate.let_go()
        answers = {answer.text: answer for answer in (get(lb.port, f"/{i}") for i in range(2))}
        cookie = answers[gates[0].order.pop()].field("Set-Cookie").partition(";")[0]
        gates[1].order.clear()
        return lb, *gates, [("Cookie", cookie)]
    return make


@pytest.fixture
def begin_at(lifetimes):
    """As begin, where each backend has a gate of its own."""
    def do(lb, gates, target, headers=()):
        def there():
            return sum(len(gate.order) for gate in gates) + lb.total("queued")
        before = there()
        client = lifetimes.enter_context(Client(lb.port))
        client.start("GET", target, headers)
        eventually(lambda: there() > before, f"{target} is there")
        return client
    return do


@ONE_AND_FOUR
def test_who_is_stuck_lets_others_pass_but_not_at_his_own_backend(sticky, begin_at, workers):
    lb, first, second, cookie = sticky(workers)
    clients = [begin_at(lb, (first, second), target, cookie if "stuck" in target else ())
               for target in ("/stuck/0", "/stuck/1", "/2", "/3", "/stuck/4", "/5")]
    assert (first.order, second.order) == (["/stuck/0"], ["/2"]), "1 waits although there is room for 2"
    second.let_go()
    second.wait(2)
    assert second.order == ["/2", "/3"]
    first.let_go()
    first.wait(2)
    assert first.order == ["/stuck/0", "/stuck/1"]
    first.let_go()
    first.wait(3)
    assert first.order[-1] == "/stuck/4", "it came before 5"
    first.let_go(10)
    second.let_go(10)
    assert statuses(clients) == [200] * 6
    assert (first.peak.total(), second.peak.total()) == (1, 1)


@ONE_AND_FOUR
def test_who_came_before_one_that_is_stuck_goes_first(sticky, begin_at, workers):
    lb, first, second, cookie = sticky(workers)
    clients = [begin_at(lb, (first, second), target, cookie if "stuck" in target else ())
               for target in ("/stuck/0", "/1", "/2", "/stuck/3")]
    first.let_go()
    first.wait(2)
    assert first.order == ["/stuck/0", "/2"]
    first.let_go(10)
    second.let_go(10)
    assert statuses(clients) == [200] * 4
    assert second.order == ["/1"]


@ONE_AND_FOUR
def test_who_is_stuck_to_a_backend_that_goes_waits_for_any(sticky, begin_at, workers):
    lb, first, second, cookie = sticky(workers)
    clients = [begin_at(lb, (first, second), target, cookie if "stuck" in target else ())
               for target in ("/stuck/0", "/1", "/stuck/2", "/stuck/3")]
    gone = next(row for row in lb.vbctl("backends")["backends"] if first.peak[row["address"]])
    assert run("vbctl", "--name", lb.name, "maint", f"web/{gone['address']}").returncode == 0
    clients += [begin_at(lb, (first, second), f"/new/{i}") for i in range(4)]
    for n in range(2, 8):
        second.let_go()
        second.wait(n)
    first.let_go()
    second.let_go()
    assert statuses(clients) == [200] * 8
    assert second.order == ["/1", "/stuck/2", "/stuck/3"] + [f"/new/{i}" for i in range(4)]


@ONE_AND_FOUR
def test_who_is_stuck_to_a_drained_backend_stands_behind_nobody_who_cannot_go_there(sticky, begin_at, workers):
    lb, first, second, cookie = sticky(workers)
    drained = next(row for row in lb.vbctl("backends")["backends"] if first.peak[row["address"]])
    assert run("vbctl", "--name", lb.name, "drain", f"web/{drained['address']}").returncode == 0
    clients = [begin_at(lb, (first, second), target, cookie if "stuck" in target else ())
               for target in ("/1", "/2", "/stuck/3", "/stuck/4")]
    first.wait(1)
    first.let_go()
    first.wait(2)
    assert (first.order, second.order) == (["/stuck/3", "/stuck/4"], ["/1"]), "2 waits for the other one"
    first.let_go()
    second.let_go(2)
    assert statuses(clients) == [200] * 4
    assert lb.total("queued") == 2
