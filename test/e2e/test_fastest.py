"""balance: fastest, by what all workers have measured; the policy's own numbers are in unit tests (design.md 7)."""
import os
import signal
from collections import Counter

import pytest
from harness import Client, Load, at_once, eventually, get, run

FASTEST = {"balance": "fastest"}


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def ask(lb, n, clients=4):
    """n requests over new connections, so that all workers get some; answers by backend, and by (backend, status)."""
    def some(_):
        return [(r.field("X-Backend"), r.status) for r in (get(lb.port) for _ in range(n // clients))]
    return Counter(answer for answers in at_once(clients, some) for answer in answers)


def by_backend(answers):
    served = Counter()
    for (name, _), n in answers.items():
        served[name] += n
    return served


def requests_of(lb, there):
    return lb.backend(there)["requests"]


def test_the_slow_one_gets_little(balancer, demos, workers):
    there = demos(3)
    there[2].control("delay=400ms")
    lb = balancer(there, workers=workers, pool=FASTEST)
    served = by_backend(ask(lb, 400))
    assert served["c"] <= 12, served
    assert sum(served.values()) == 400 and min(served["a"], served["b"]) >= 40, served
    picks = lb.backend(there[2])["picks"]
    assert picks["explore"] >= 1, picks  # nothing was known of it


def test_failing_fast_is_not_fast_and_who_recovers_is_found(balancer, demos, workers):
    """The others take 250 ms, so one failure, which counts as a second, has faded after ten seconds."""
    there = demos(3, "--delay", "250ms")
    lb = balancer(there, workers=workers, pool=FASTEST)
    at_once(9, lambda _: get(lb.port))  # now all are known
    there[2].control("delay=0ms&fail=100%")
    assert eventually(lambda: get(lb.port).status == 500, "it has failed")
    before = requests_of(lb, there[2])
    answers = ask(lb, 40)  # for some three seconds
    failed = sum(n for (_, status), n in answers.items() if status != 200)
    assert failed == requests_of(lb, there[2]) - before <= 2, answers
    there[2].control("delay=250ms&fail=0%")
    before = requests_of(lb, there[2])
    with Load(lb.port, clients=4) as load:
        eventually(lambda: requests_of(lb, there[2]) >= before + 10, "it is found, and like the others again", 90)
    assert load.failures() == []


def test_who_was_slow_is_found(balancer, demos, workers):
    there = demos(2, "--delay", "50ms")
    there[1].control("delay=400ms")
    lb = balancer(there, workers=workers, pool=FASTEST)
    served = by_backend(ask(lb, 60))
    assert served["b"] <= 6, served
    there[1].control("delay=50ms")
    before = requests_of(lb, there[1])
    with Load(lb.port, clients=2):
        eventually(lambda: requests_of(lb, there[1]) >= before + 20, "it is as fast as the other one, and known to be", 60)


def test_one_that_cannot_be_reached_is_not_fast(balancer, demos, workers):
    there = demos(3)
    lb = balancer(there, workers=workers, pool={**FASTEST, "outlier": "off"})
    assert by_backend(ask(lb, 60))["c"] > 0  # it was as fast as the others
    there[2].kill()
    answers = ask(lb, 200)
    assert {status for _, status in answers} == {200}, answers  # each failure was tried again elsewhere
    assert lb.backend(there[2])["errors"] <= 12


def test_one_that_hangs_is_not_fast_because_clients_give_up(balancer, demos, workers):
    """It was as fast as the other one, and nothing is in flight there: all that is known is that clients did not want
    to wait."""
    there = demos(2, "--delay", "40ms")
    lb = balancer(there, workers=workers, pool=FASTEST)
    assert min(by_backend(ask(lb, 40)).values()) > 0
    there[1].control("delay=5s")
    given_up = 0
    for _ in range(40):
        with Client(lb.port) as client:
            client.socket.settimeout(0.5)
            client.start("GET", "/")
            try:
                client.response("GET")
            except TimeoutError:
                client.reset()
                given_up += 1
                eventually(lambda: lb.backend(there[1])["in_flight"] == 0, "it is seen that the client has gone")
    assert given_up <= 10, given_up


@pytest.mark.parametrize("change", ["reload", "kill"])
def test_what_is_known_stays(balancer, demos, workers, change):
    there = demos(3)
    there[2].control("delay=1s")
    lb = balancer(there, workers=workers, pool=FASTEST)
    at_once(20, lambda _: get(lb.port))
    lb.wait_idle()
    before = requests_of(lb, there[2])
    assert before >= 1
    if change == "reload":
        lb.reload(limits={"headers": 99})
        lb.wait_old_gone()
    else:
        pids = lb.worker_pids()
        os.kill(pids[0], signal.SIGKILL)
        lb.wait_workers(without=pids[:1])
    served = by_backend(ask(lb, 80))
    assert served["c"] == 0 and requests_of(lb, there[2]) == before, served


def test_how_slowly_a_client_sends_says_nothing(balancer, demos, workers):
    there = demos(2)
    lb = balancer(there, workers=workers, pool=FASTEST)
    assert run("vbctl", "--name", lb.name, "drain", "web/" + lb.backend(there[1])["name"]).returncode == 0

    def upload(_):
        with Client(lb.port) as client:
            client.start("POST", "/sink", [("Content-Length", "5")])
            client.trickle(b"slow!", 0.1)
            return client.response("POST").status
    assert at_once(8, upload) == [200] * 8
    assert run("vbctl", "--name", lb.name, "ready", "web/" + lb.backend(there[1])["name"]).returncode == 0
    served = by_backend(ask(lb, 100))
    assert served["a"] >= 15, served
