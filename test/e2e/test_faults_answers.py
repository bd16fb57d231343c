"""Backends that answer wrongly, or not at all, or go away between two requests, under load."""
import random

import pytest
from faults import NamedLoad
from harness import Truncated, eventually

ONE_AND_FOUR = pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")
IN_FLIGHT = 16  # clients of a load


def now_and_then():
    """So that connections become idle, for about as long as backends keep them."""
    return random.uniform(0, 0.1)


@pytest.mark.parametrize("workers, how, chunked", [(1, "reset-middle", False), (4, "reset-middle", True),
                                                   (4, "close-middle", False), (1, "close-middle", True)],
                         ids=["reset, length", "reset, chunked", "closed, length", "closed, chunked"])
def test_a_response_that_breaks_in_the_middle(town, workers, how, chunked):
    """Nothing can save it: its client must see that it is broken, and it is counted. The backend is ejected."""
    there = town(workers=workers, how={"chunked": chunked})
    with there.load() as load:
        load.wait(100)
        there.recorders[0].set(do=how)
        load.wait(1000)
    there.report(f"{how}, {workers} workers", load)
    broken = load.failures()
    assert 5 <= len(broken) <= 5 + IN_FLIGHT, "five in a row eject it"
    assert all(isinstance(sent.outcome, (Truncated, ConnectionError)) for sent in broken)
    there.wait_quiet()
    assert there.lb.total("failed") == len(broken)
    moved = there.retried()  # those that waited for a first byte when it was ejected
    assert moved <= IN_FLIGHT and there.lb.backend(there.recorders[0])["errors"] == len(broken) + moved


@ONE_AND_FOUR
def test_a_reset_before_any_byte(town, workers):
    there = town(workers=workers)
    with there.load() as load:
        load.wait(100)
        there.recorders[0].set(do="reset")
        load.wait(1000)
    there.report(f"reset before any byte, {workers} workers", load)
    assert load.failures() == []
    assert 5 <= there.retried() <= 5 + IN_FLIGHT
    assert there.lb.total("failed") == 0
    there.wait_quiet()


def test_a_reset_before_any_byte_with_posts(town):
    there = town(workers=4)
    with there.load(methods=("POST",)) as load:
        load.wait(100)
        there.recorders[0].set(do="reset")
        load.wait(1000)
    there.report("reset before any byte, 4 workers", load)
    assert there.doubled() == []
    assert there.retried() <= IN_FLIGHT  # of which nothing had been sent when it was ejected
    assert {sent.outcome for sent in load.failures()} == {502}
    assert 5 <= len(load.failures()) <= 5 + IN_FLIGHT
    assert there.lb.total("failed") == len(load.failures())


@ONE_AND_FOUR
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_idle_connections_that_are_closed_at_any_time(town, workers, method):
    """All three backends: a GET that meets such an end is sent again; a POST is not, it may have been read."""
    there = town(workers=workers, how={"idle_close": [0, 0.05]})
    with NamedLoad(there.lb.port, methods=(method,), pause=now_and_then) as load:
        load.last(2)
    there.report(f"idle connections closed at random, {workers} workers", load)
    assert there.doubled("POST") == []
    if method == "GET":
        assert load.failures() == []
    assert {sent.outcome for sent in load.failures()} <= {502}
    assert sum(row["connects"] for row in there.lb.vbctl("backends")["backends"]) > 20, "connections were closed"
    there.wait_quiet()


@ONE_AND_FOUR
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ends_of_idle_connections_that_cross_a_request(town, workers, method):
    """The same moment made certain: each tenth request on a kept connection finds it gone. That is nobody's failure."""
    there = town(workers=workers, how={"drop_kept": 0.1})
    with there.load(methods=(method,)) as load:
        load.wait(1500)
    there.report(f"kept connections gone, {workers} workers", load)
    rows = there.lb.vbctl("backends")["backends"]
    stale = sum(row["stale"] for row in rows)
    assert there.doubled() == [], "what was not read was not processed"
    if method == "GET":
        assert load.failures() == []
        assert stale == there.retried() > 50
        assert sum(row["errors"] for row in rows) == 0
    else:
        assert there.retried() == 0
    assert {sent.outcome for sent in load.failures()} <= {502}
    there.wait_quiet()


def test_how_long_a_backend_keeps_connections_is_respected(town):
    """It says Keep-Alive: timeout=1, and closes then; the pauses are about as long. Not one POST meets the end."""
    there = town(workers=2, how={"keep_alive": 1})
    with there.load(methods=("POST",), pause=lambda: random.uniform(0.8, 1.2)) as load:
        load.last(4)
    there.report("Keep-Alive: timeout=1", load)
    assert load.failures() == []
    assert there.doubled() == []


@ONE_AND_FOUR
def test_garbage(town, workers):
    """It is ejected after a few answers; GETs are tried elsewhere, and nobody is told that garbage was the answer."""
    there = town(workers=workers)
    victim = there.recorders[0]
    with there.load(methods=("GET", "POST")) as load:
        load.wait(100)
        victim.set(do="garbage")
        eventually(lambda: there.lb.backend(victim)["errors"] >= 5, "it is noticed")
        load.wait(500)
    there.report(f"garbage, {workers} workers", load)
    assert {(sent.method, sent.outcome) for sent in load.failures()} <= {("POST", 502)}
    assert 5 <= there.lb.backend(victim)["errors"] <= 5 + IN_FLIGHT
    assert there.doubled("POST") == []
    there.wait_quiet()


@ONE_AND_FOUR
def test_statuses_that_may_be_tried_again(town, workers):
    """One of three says 503 and nothing else: with `retry.on` GETs never see it, and it is ejected."""
    pool = {"retry": {"on": ["connect", "reset", "timeout", 503]}}
    there = town(workers=workers, pool=pool)
    with there.load() as load:
        load.wait(100)
        there.recorders[0].set(do="status")
        load.wait(1000)
    there.report(f"503 of one of three, {workers} workers", load)
    assert load.failures() == []
    assert 5 <= there.retried() <= 5 + IN_FLIGHT
    there.wait_quiet()
