"""What bounds tries: the budget, time, places (circuit_breaker); and what ends a wait: the backend is taken out.

What is tried again at all: test_retries.py.
"""
import threading
import time
from collections import Counter

import pytest
from harness import (Client, Turns, at_once, deaf_address, eventually, free_port, get, hang, post, reply, reset, run)

ONE_AND_FOUR = pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")


def rows_of(lb):
    lb.wait_idle()
    return lb.vbctl("backends")["backends"]


def total(lb, field):
    return sum(row[field] for row in rows_of(lb))


# ---- the budget ------------------------------------------------------------------------------------------------------


@ONE_AND_FOUR
@pytest.mark.parametrize("percent", [20, 10, 0])
def test_the_budget_is_exact_over_all_workers(balancer, backend, workers, percent):
    """One of two always resets: half of all requests want another try, and only as many get one as there may be."""
    pool = {"outlier": "off"} if percent == 20 else {"outlier": "off", "retry": {"budget": f"{percent}%"}}
    lb = balancer([backend(reset), backend()], workers=workers, pool=pool)
    began = time.monotonic()

    def ask(_):
        with Client(lb.port) as client:
            return [client.get().status for _ in range(50)]
    statuses = Counter(status for some in at_once(10, ask) for status in some)
    seconds = time.monotonic() - began
    retries, share = total(lb, "retries"), 500 * percent // 100
    assert set(statuses) == {200, 502}
    assert lb.total("failed") == statuses[502]
    assert total(lb, "errors") == retries + statuses[502]
    wanted = total(lb, "errors")
    assert retries <= share + 10 + seconds + 1
    assert retries >= min(share, wanted) - 5, f"{wanted} were wanted"


def test_at_rest_there_are_ten_tries(balancer, backend):
    """... so that the first requests after a quiet night are saved too; then one a second."""
    lb = balancer([backend(reset) for _ in range(2)], pool={"outlier": "off"})
    began = time.monotonic()
    for _ in range(20):
        assert get(lb.port).status == 502
    seconds = time.monotonic() - began
    assert 10 <= total(lb, "retries") <= 10 + 4 + seconds + 1
    before = total(lb, "retries")
    for n in range(1, 3):  # a second later there is one more
        eventually(lambda: get(lb.port).status == 502 and total(lb, "retries") > before + n, "a further try")
    assert total(lb, "retries") < 40


def test_a_try_that_no_backend_had_work_with_asks_no_budget(balancer, backend):
    """Refused connections: as many as there are."""
    lb = balancer([backend(), f"127.0.0.1:{free_port()}"], pool={"outlier": "off"})
    assert [get(lb.port).status for _ in range(100)] == [200] * 100
    assert total(lb, "retries") > 40


def test_pools_have_budgets_of_their_own(balancer, backend):
    bad = {"outlier": "off", "health": "off"}
    pools = {"other": {"backends": [backend(reset) for _ in range(2)], **bad}}
    routes = [{"path": "/other", "pool": "other"}, {"pool": "web", "path": "/"}]
    lb = balancer([backend(reset) for _ in range(2)], pool=bad, more_pools=pools, config={"routes": routes})
    for _ in range(30):
        get(lb.port, "/other")
    spent = sum(row["retries"] for row in rows_of(lb) if row["pool"] == "other")
    assert 10 <= spent < 30, "it is used up"
    get(lb.port, "/")
    assert sum(row["retries"] for row in rows_of(lb) if row["pool"] == "web") == 1


# ---- time ------------------------------------------------------------------------------------------------------------


def test_the_response_time_out_is_for_each_try(balancer, backend):
    both = [backend(answer) for answer in [Turns(hang, reply("fine"))] * 2]
    lb = balancer(both, pool={"timeouts": {"response": "300ms"}})
    began = time.monotonic()
    assert get(lb.port).text == "fine"
    assert time.monotonic() - began > 0.29
    row = max(rows_of(lb), key=lambda row: row["errors"])
    assert (row["errors"], row["timeouts"], row["retries"]) == (1, 1, 1)


def test_a_post_that_takes_too_long_is_504(balancer, backend):
    both = [backend(answer) for answer in [Turns(hang, reply("fine"))] * 2]
    lb = balancer(both, pool={"timeouts": {"response": "300ms"}})
    assert post(lb.port, "/", b"x").status == 504
    assert sum(len(there.requests) for there in both) == 1
    assert lb.total("failed") == 1


def test_all_tries_together_have_a_time(balancer, backend):
    """Two time-outs of 400 ms fit into a second; the third try is cut."""
    backends = [backend(hang) for _ in range(3)]
    lb = balancer(backends, pool={"timeouts": {"response": "400ms"}, "retry": {"total": "1s"}})
    began = time.monotonic()
    assert get(lb.port).status == 504
    assert 0.95 < time.monotonic() - began < 1.15 + 1
    assert [len(there.requests) for there in backends] == [1, 1, 1]
    assert lb.total("failed") == 1
    lb.wait_idle()


def test_no_try_begins_when_the_time_is_over(balancer, backend):
    backends = [backend(hang) for _ in range(3)]
    lb = balancer(backends, pool={"timeouts": {"response": "500ms"}, "retry": {"total": "300ms"}})
    assert get(lb.port).status == 504
    assert sum(len(there.requests) for there in backends) == 1


def test_a_response_that_has_begun_has_its_time(balancer, backend):
    """`total` is about tries, not about how long a body takes."""
    def slowly(connection, request):
        whole = reply("x" * 10)
        connection.send(whole[:-10])
        for _ in range(10):
            time.sleep(0.05)
            connection.send(b"x")
    both = [backend(answer) for answer in [Turns(reset, slowly)] * 2]
    lb = balancer(both, pool={"retry": {"total": "250ms"}})
    assert get(lb.port).text == "x" * 10
    assert lb.total("failed") == 0


# ---- the backend is taken out while a request waits ------------------------------------------------------------------


class Holder:
    """Backends of which the one that gets /wait first holds it; from then on it fails as it is told to."""

    def __init__(self, backend, n=2):
        self.held, self.healthy = None, True
        self.backends = [backend(self.answer) for _ in range(n)]

    def answer(self, connection, request):
        here = connection.backend
        if request.target == "/health":
            connection.send(reply() if self.healthy or here is not self.held else reply(status="503 No"))
        elif request.target == "/wait" and self.held in (None, here):
            self.held = here
            here.released.wait(15)
            connection.send(reply("late"))
        elif request.target == "/fail" and here is self.held:
            connection.reset()
        else:
            connection.send(reply("fine"))


@ONE_AND_FOUR
@pytest.mark.parametrize("how", ["down", "ejected"])
@pytest.mark.parametrize("method, body, text", [("GET", None, "fine"), ("PUT", b"x" * 5000, "fine"),
                                                ("POST", b"x", "late")], ids=["GET", "PUT", "POST"])
def test_a_backend_that_is_taken_out_while_requests_wait(balancer, backend, workers, how, method, body, text):
    """What may be sent twice goes elsewhere at once; what may not waits on."""
    holder = Holder(backend)
    pool = {"outlier": {"consecutive": 3}}
    if how == "down":
        pool["health"] = {"path": "/health", "interval": "100ms", "fast_interval": "50ms"}
    lb = balancer(holder.backends, workers=workers, pool=pool)
    if how == "down":
        for there in holder.backends:
            lb.wait_health(there, "up")
    with Client(lb.port) as client:
        client.start(method, "/wait", body=body)
        eventually(lambda: holder.held, "one of them has it")
        client.socket.settimeout(5)
        if how == "down":
            holder.healthy = False
            lb.wait_health(holder.held, "down")
        else:
            while "EJECTED" not in lb.log():
                post(lb.port, "/fail")
        if text == "late":
            client.socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.socket.recv(1)
            client.socket.settimeout(5)
            holder.held.released.set()
        assert client.response(method).text == text
    lb.wait_idle()
    assert sum(request.target == "/wait" for there in holder.backends for request in there.requests) == (
        1 if text == "late" else 2)


def test_when_there_is_nobody_else_it_waits_on(balancer, backend):
    holder = Holder(backend, n=1)
    lb = balancer(holder.backends, pool={"health": {"path": "/health", "interval": "100ms", "fast_interval": "50ms"}})
    lb.wait_health(holder.backends[0], "up")
    with Client(lb.port) as client:
        client.start("GET", "/wait")
        eventually(lambda: holder.held, "it has it")
        holder.healthy = False
        lb.wait_health(holder.held, "down")
        holder.held.released.set()
        assert client.response().text == "late"


# ---- circuit_breaker -------------------------------------------------------------------------------------------------


def refused_at_once(response):
    assert response.status == 503 and int(response.field("Retry-After")) >= 1


@ONE_AND_FOUR
def test_no_more_requests_than_may_be(balancer, backend, workers):
    """To the last place, over all workers; and each comes back."""
    there = [backend(lambda c, r: (c.backend.released.wait(15), c.send(reply()))) for _ in range(2)]
    lb = balancer(there, workers=workers, pool={"circuit_breaker": {"max_requests": 10}})
    clients = [Client(lb.port) for _ in range(10)]
    for client in clients:
        client.start("GET", "/")
    eventually(lambda: lb.vbctl("status")["in_flight"] == 10, "all are in flight")
    for response in at_once(8, lambda _: get(lb.port)):
        refused_at_once(response)
    assert lb.total("overloaded") == 8
    assert sum(len(backend.requests) for backend in there) == 10
    for backend_ in there:
        backend_.released.set()
    for client in clients:
        assert client.response().status == 200
        client.close()
    lb.wait_idle()
    assert [response.status for response in at_once(10, lambda _: get(lb.port))] == [200] * 10
    assert lb.total("failed") == lb.total("unavailable") == 0


@ONE_AND_FOUR
def test_no_more_requests_wait_for_a_connection_than_may(balancer, backend, workers):
    with deaf_address() as deaf:
        lb = balancer(deaf, workers=workers, pool={"circuit_breaker": {"max_pending": 3},
                                                   "timeouts": {"connect": "3s"}})
        clients = [Client(lb.port) for _ in range(3)]
        for client in clients:
            client.start("GET", "/")
        eventually(lambda: lb.vbctl("status")["in_flight"] == 3, "all are in flight")
        began = time.monotonic()
        for response in at_once(5, lambda _: get(lb.port)):
            refused_at_once(response)
        assert time.monotonic() - began < 2, "nobody waits"
        for client in clients:
            client.reset()
        lb.wait_idle()
        again = Client(lb.port)
        again.start("GET", "/")
        assert again.response().status == 504, "places come back"
        again.close()


def test_a_request_that_is_tried_again_keeps_its_one_place(balancer, backend):
    both = [backend(answer) for answer in [Turns(reset, reply("fine"), reset, reply("fine"), reply("fine"))] * 2]
    lb = balancer(both, pool={"circuit_breaker": {"max_requests": 1, "max_pending": 1}})
    with Client(lb.port) as client:
        assert [client.get().text for _ in range(5)] == ["fine"] * 5
    assert lb.total("overloaded") == 0


def test_refused_by_one_pool_is_not_refused_by_another(balancer, backend):
    lb = balancer(there := backend(hang), more_pools={"other": {"backends": [backend(reply("fine"))], "health": "off"}},
                  pool={"circuit_breaker": {"max_requests": 1}},
                  config={"routes": [{"path": "/other", "pool": "other"}, {"path": "/", "pool": "web"}]})
    client = Client(lb.port)
    client.start("GET", "/")
    there.wait_requests(1)
    refused_at_once(get(lb.port))
    assert get(lb.port, "/other").text == "fine"
    client.reset()
    lb.wait_idle()


# ---- what costs no budget, and what must not cost any ----------------------------------------------------------------


def test_no_budget_is_spent_where_there_is_nobody_else(balancer, backend):
    lb = balancer([{"address": backend(reset), "name": "bad"}, {"address": backend(), "name": "good"}],
                  pool={"outlier": "off"})
    assert run("vbctl", "--name", lb.name, "drain", "web/good").returncode == 0
    assert [get(lb.port).status for _ in range(40)] == [502] * 40
    assert lb.backend("bad")["retries"] == 0
    assert run("vbctl", "--name", lb.name, "ready", "web/good").returncode == 0
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_the_good_one_keeps_its_turns_when_the_budget_is_used_up(balancer, backend):
    """One of two fails: half of the requests go well, whatever the budget."""
    lb = balancer([backend(reset), backend()], pool={"outlier": "off", "retry": {"budget": "0%"}})
    statuses = [get(lb.port).status for _ in range(80)]
    assert statuses.count(200) >= 40


@ONE_AND_FOUR
def test_what_is_under_way_when_a_backend_is_taken_out_costs_no_budget(balancer, backend, workers):
    """It dies with 60 requests: the first failures eject it, and then it is only those that it has."""
    def answer(connection, request):
        connection.backend.released.wait(20)
        connection.reset()
    dying, good = backend(answer), backend()
    lb = balancer([dying, good], workers=workers, pool={"retry": {"budget": "0%"}, "balance": "round_robin"})
    clients = [Client(lb.port) for _ in range(120)]
    for client in clients:
        client.start("GET", "/")
    dying.wait_requests(60)
    dying.released.set()
    assert [client.response().status for client in clients] == [200] * 120
    assert lb.backend(dying)["ejected"] and lb.backend(dying)["retries"] == 60
    for client in clients:
        client.close()


# ---- the time of an upload -------------------------------------------------------------------------------------------


def test_the_time_of_all_tries_is_not_that_of_an_upload(balancer, backend):
    """A client that sends all the time is no slow backend, also when its first try was refused."""
    there = backend(lambda c, r: c.send(reply(str(len(r.body)))))
    lb = balancer([there, f"127.0.0.1:{free_port()}"], pool={"retry": {"total": "500ms"}, "outlier": "off"})
    for _ in range(2):
        with Client(lb.port) as client:
            client.start("PUT", "/", [("Content-Length", "100000")])
            for _ in range(10):
                client.send(b"x" * 10000)
                time.sleep(0.1)
            assert client.response().text == "100000"


# ---- ejections and the rest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("health", [{"interval": "200ms"}, "off"], ids=["checked", "unchecked"])
def test_an_ejected_backend_that_is_well_again_is_not_missed(balancer, backend, health):
    """A rolling restart of two: the second goes when the first is back, but is still ejected."""
    both = [backend(), backend()]
    lb = balancer(both, pool={"health": health, "outlier": {"eject": "60s"}})
    both[0].stop()
    eventually(lambda: get(lb.port).status == 200 and lb.backend(both[0])["ejections"] > 0, "it is ejected")
    both[0].start()
    if health != "off":
        eventually(lambda: lb.backend(both[0])["health"] == "up" and not lb.backend(both[0])["ejected"],
                   "a check that connects ends an ejection for want of a connection")
    both[1].stop()
    assert [get(lb.port).status for _ in range(100)] == [200] * 100


def test_who_waits_at_one_that_is_picked_from_is_left_alone(balancer, backend):
    """Two are ejected, then the others go down: an ejection ends for that, and what goes there stays there."""
    ill, gate = threading.Event(), threading.Event()

    def made(name):
        def answer(connection, request):
            if request.target == "/health" and ill.is_set() and name in ("b3", "b4"):
                connection.close()
            if request.target == f"/bad-{name}":
                connection.close()
            if request.target == "/slow":
                gate.wait(20)
            connection.send(reply(name))
        return backend(answer)
    backends = {name: made(name) for name in ("b1", "b2", "b3", "b4")}
    lb = balancer([{"address": there, "name": name} for name, there in backends.items()],
                  pool={"health": {"path": "/health", "interval": "100ms", "fast_interval": "50ms"},
                        "outlier": {"consecutive": 1, "eject": "60s"}, "retry": {"budget": "off"}})
    for name in ("b1", "b2"):
        eventually(lambda: get(lb.port, f"/bad-{name}") and lb.backend(name)["ejected"], f"{name} is ejected")
    ill.set()
    lb.wait_health("b3", "down")
    lb.wait_health("b4", "down")
    with Client(lb.port) as client:
        client.start("GET", "/slow")

        def asked():
            return [name for name, there in backends.items() if "/slow" in [r.target for r in there.requests]]
        first = eventually(asked, "it has come somewhere")
        assert run("vbctl", "--name", lb.name, "weight", "web/b3", "3").returncode == 0  # another picture
        assert [get(lb.port).status for _ in range(20)] == [200] * 20
        gate.set()
        assert [client.response().text] == first == asked()


def test_an_upgrade_behind_a_status_that_was_tried_again_is_no_5xx(balancer, backend):
    turns = Turns(reply(status="503 No"), b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                                          b"Upgrade: websocket\r\n\r\n")
    both = [backend(turns), backend(turns)]
    lb = balancer(both, pool={"retry": {"on": [503]}})
    with Client(lb.port) as client:
        client.start("GET", "/", [("Connection", "upgrade"), ("Upgrade", "websocket")])
        assert client.head().status == 101
        rows = [lb.backend(there) for there in both]
        assert sorted((row["responses_5xx"], row["upgrades"]) for row in rows) == [(0, 1), (1, 0)]
