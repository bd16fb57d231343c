"""Who gets which request: round_robin and least_conn are exact over all workers together (design.md 7).

test_exact.py looks closer: any requests in a row, hundreds in flight, after crashes and reloads.
"""
from collections import Counter

import pytest
from harness import Client, at_once, eventually, get, hang, reply

SOON = {"interval": "200ms", "fast_interval": "100ms"}


@pytest.fixture
def three(backend):
    return [backend(reply(name)) for name in "abc"]


def names(responses):
    assert {response.status for response in responses} == {200}
    return "".join(response.text for response in responses)


def test_round_robin_takes_turns_over_new_connections(balancer, three, workers):
    lb = balancer(three, workers=workers)
    served = names([get(lb.port) for _ in range(30)])
    assert served == served[:3] * 10 and set(served[:3]) == set("abc")


def test_round_robin_takes_turns_over_one_kept_connection(balancer, three, workers):
    lb = balancer(three, workers=workers)
    with Client(lb.port) as client:
        served = names([client.get() for _ in range(30)])
    assert served == served[:3] * 10 and set(served[:3]) == set("abc")


def test_round_robin_is_exact_for_concurrent_requests(balancer, three, workers):
    lb = balancer(three, workers=workers)
    assert Counter(names(at_once(30, lambda _: get(lb.port)))) == {"a": 10, "b": 10, "c": 10}
    lb.wait_idle()
    assert [row["requests"] for row in lb.vbctl("backends")["backends"]] == [10, 10, 10]


def test_round_robin_is_the_default(balancer, three):
    lb = balancer(three)
    assert Counter(names([get(lb.port) for _ in range(9)])) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("weights", [[3, 2, 1], [1, 1, 4], [7, 7, 7], [256, 1, 1]], ids=str)
def test_weights_are_exact_over_a_whole_turn(balancer, three, weights):
    lb = balancer([{"address": b, "weight": w} for b, w in zip(three, weights)], workers=2)
    with Client(lb.port) as client:
        served = Counter(names([client.get() for _ in range(sum(weights))]))
    assert [served[name] for name in "abc"] == weights


def hang_on_demand(name):
    """Answers with its name; where /hang is asked for, once it is released."""
    def answer(connection, request):
        if request.target == "/hang":
            connection.hang()
        connection.send(reply(name))
    return answer


@pytest.fixture
def open_slowly(lifetimes):
    """Sends n requests that hang, each after the one before has arrived: so there is only one right place for it."""
    def do(port, backends, n):
        before = sum(len(b.requests) for b in backends)
        for i in range(1, n + 1):
            lifetimes.enter_context(Client(port)).start("GET", "/hang")
            eventually(lambda: sum(len(b.requests) for b in backends) == before + i, "the request has arrived")
    return do


def test_least_conn_counts_over_all_workers(balancer, backend, open_slowly, workers):
    backends = [backend(hang), backend(hang)]
    lb = balancer(backends, workers=workers, pool={"balance": "least_conn"})
    for n in range(1, 6):
        open_slowly(lb.port, backends, 2)
        assert [len(b.requests) for b in backends] == [n, n]
    assert [row["in_flight"] for row in lb.vbctl("backends")["backends"]] == [5, 5]
    assert lb.vbctl("status")["in_flight"] == 10
    for b in backends:
        b.released.set()
    lb.wait_idle()


def test_least_conn_avoids_a_busy_backend(balancer, backend, open_slowly):
    """Two requests hang there: one that has just been answered elsewhere may still be counted for an instant."""
    busy, free = backend(hang_on_demand("busy")), backend(hang_on_demand("free"))
    lb = balancer([busy, free], workers=2, pool={"balance": "least_conn"})
    open_slowly(lb.port, [busy, free], 4)
    free.released.set()
    eventually(lambda: lb.backend(free)["in_flight"] == 0, "one is free again")
    assert names([get(lb.port) for _ in range(20)]) == "free" * 20
    assert lb.backend(busy)["in_flight"] == 2
    busy.released.set()
    lb.wait_idle()
    assert {get(lb.port).text for _ in range(20)} == {"busy", "free"}


def test_least_conn_uses_all_idle_backends(balancer, three):
    lb = balancer(three, pool={"balance": "least_conn"})
    assert set(names([get(lb.port) for _ in range(30)])) == set("abc"), "ties always go to the same one"


def test_least_conn_minds_weights(balancer, backend, open_slowly):
    backends = [backend(hang), backend(hang)]
    lb = balancer([{"address": b, "weight": w} for b, w in zip(backends, [3, 1])], pool={"balance": "least_conn"})
    open_slowly(lb.port, backends, 8)
    assert [len(b.requests) for b in backends] == [6, 2]
    for b in backends:
        b.released.set()


# ---- chance ----------------------------------------------------------------------------------------------------------


def test_random_is_by_weight(balancer, three, workers):
    lb = balancer([{"address": b, "weight": w} for b, w in zip(three, [6, 3, 1])], workers=workers,
                  pool={"balance": "random"})
    counts = Counter(names([get(lb.port) for _ in range(1000)]))
    for name, share in zip("abc", [0.6, 0.3, 0.1]):
        assert abs(counts[name] - 1000 * share) < 5 * (1000 * share * (1 - share)) ** 0.5, counts


def test_p2c_takes_the_less_loaded_of_two(balancer, backend, open_slowly, workers):
    """Of two backends both are drawn each time, so it is as least_conn."""
    backends = [backend(hang), backend(hang)]
    lb = balancer(backends, workers=workers, pool={"balance": "p2c"})
    for n in range(1, 6):
        open_slowly(lb.port, backends, 2)
        assert [len(b.requests) for b in backends] == [n, n]
    for b in backends:
        b.released.set()
    lb.wait_idle()


@pytest.mark.parametrize("policy", ["random", "p2c"])
def test_chance_never_meets_who_is_gone(balancer, demos, policy, workers):
    """A dead one costs tries, not requests; and it gets no more once it is known to be down."""
    there = demos(3)
    lb = balancer(there, workers=workers, pool={"balance": policy, "health": SOON})
    there[1].kill()
    assert [response.status for response in at_once(100, lambda _: get(lb.port))] == [200] * 100
    lb.wait_health(there[1], "down")
    before = lb.backend(there[1])["requests"]
    assert [get(lb.port).status for _ in range(50)] == [200] * 50
    assert lb.backend(there[1])["requests"] == before
