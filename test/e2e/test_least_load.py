"""balance: least_load, by what backends report in their responses or in answers to health checks (design.md 7)."""
import os
import signal
from collections import Counter

import pytest
from harness import at_once, eventually, get, reply

LEAST_LOAD = {"balance": "least_load"}
FORMS = {
    "X-Load": ("X-Load", "%.2f"),
    "percent": ("X-Load", "%.0f%%"),
    "text": ("endpoint-load-metrics", "TEXT cpu_utilization=%.2f, mem_utilization=0.1"),
    "json": ("endpoint-load-metrics", 'JSON {"mem_utilization": 0.1, "application_utilization": %.2f}'),
}


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def loaded(name, load, form="X-Load"):
    field, value = FORMS[form]
    return reply(name, headers=[(field, value % (load * 100 if form == "percent" else load))])


def ask(lb, n, clients=4):
    """n requests over new connections; how many each backend has answered."""
    def some(_):
        responses = [get(lb.port) for _ in range(n // clients)]
        assert {response.status for response in responses} == {200}
        return [response.text for response in responses]
    return Counter(name for names in at_once(clients, some) for name in names)


@pytest.mark.parametrize("form", FORMS)
def test_who_reports_more_load_gets_less(balancer, backend, workers, form):
    there = [backend(loaded(name, load, form)) for name, load in zip("abc", [0.1, 0.1, 0.9])]
    lb = balancer(there, workers=workers, pool=LEAST_LOAD)
    ask(lb, 20)
    served = ask(lb, 200)
    assert served["c"] <= 20 and min(served["a"], served["b"]) >= 40, served


def test_the_shares_follow_the_reports(balancer, backend, workers):
    there = [backend(loaded(name, load)) for name, load in zip("abc", [0.1, 0.1, 0.9])]
    lb = balancer(there, workers=workers, pool=LEAST_LOAD)
    ask(lb, 100)
    for name, b, load in zip("abc", there, [0.9, 0.9, 0.1]):
        b.answer = loaded(name, load)
    ask(lb, 100)  # each says so with its next response, and c is as good as the others until it does
    served = ask(lb, 200)
    assert served["c"] > served["a"] + served["b"], served


def test_where_nobody_reports_all_get_some(balancer, backend, workers):
    lb = balancer([backend(reply(name)) for name in "abc"], workers=workers, pool=LEAST_LOAD)
    served = ask(lb, 300)
    assert min(served.values()) >= 20 and len(served) == 3, served


def test_what_cannot_be_read_is_no_report(balancer, backend):
    values = ["-1", "nan", "1e3", "0.1, 0.2"]
    there = [backend(reply("ab"[i], headers=[("X-Load", values[i])])) for i in range(2)]
    there += [backend(reply("cd"[i], headers=[("endpoint-load-metrics", "JSON {" + values[i])])) for i in range(2)]
    lb = balancer(there, pool=LEAST_LOAD)
    served = ask(lb, 400)
    assert min(served.values()) >= 50 and len(served) == 4, served


def test_health_checks_report_too(balancer, backend, workers):
    def answer(name, load):
        def say(connection, request):
            connection.send(loaded(name, load) if request.target == "/health" else reply(name))
        return say
    there = [backend(answer(name, load)) for name, load in zip("abc", [0.9, 0.1, 0.1])]
    health = {"path": "/health", "interval": "200ms", "fast_interval": "200ms"}
    lb = balancer(there, workers=workers, pool={**LEAST_LOAD, "health": health})
    for b in there:
        lb.wait_health(b, "up")
    served = ask(lb, 200)
    assert served["a"] <= 20 and min(served["b"], served["c"]) >= 40, served


@pytest.mark.parametrize("change", ["reload", "kill"])
def test_what_was_reported_stays(balancer, backend, workers, change):
    """Whoever had forgotten the reports would go to c again, to find out."""
    there = [backend(loaded(name, load)) for name, load in zip("abc", [0.1, 0.1, 5])]
    lb = balancer(there, workers=workers, pool=LEAST_LOAD)
    eventually(lambda: ask(lb, 20)["c"] == 0 and len(there[2].requests) > 0, "all have reported")
    before = len(there[2].requests)
    if change == "reload":
        lb.reload(limits={"headers": 99})
    else:
        pids = lb.worker_pids()
        os.kill(pids[0], signal.SIGKILL)
        lb.wait_workers(without=pids[:1])
    assert ask(lb, 80)["c"] == 0
    assert len(there[2].requests) == before
