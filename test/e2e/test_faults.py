"""Backends that die, hang and come back under load: what no client may notice, and what must never happen twice.

The other fault tests: test_faults_answers.py (backends that answer wrongly), test_faults_machine.py (what the machine
does not give), test_faults_memory.py (allocations that fail). test_crash.py and test_chaos.py kill workers.
"""
import time

import pytest
from faults import Recorder, doubled
from harness import Client, eventually

ONE_AND_FOUR = pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")
CHECKS_SOON = {"interval": "200ms", "fast_interval": "100ms", "timeout": "200ms", "path": "/health"}
IN_FLIGHT = 16  # clients of a load: no more requests can be on their way at a time


def test_a_recorder_records(tmp_path):
    """Of the tools themselves: an id that two processes have seen is found, also when they have been killed."""
    with Recorder(tmp_path) as a, Recorder(tmp_path) as b:
        for recorder, targets in ((a, ["/r/1", "/r/2"]), (b, ["/r/2", "/r/3", "/health"])):
            with Client(recorder.port) as client:
                for target in targets:
                    assert client.get(target).status == 200
        with Client(a.port) as client:
            client.start("POST", "/x", [("X-Id", "4"), ("Transfer-Encoding", "chunked")])
            client.send(b"3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n")
            assert client.response().field("X-Id") == "4"
        a.kill()
        assert a.seen() == [("1", "GET"), ("2", "GET"), ("4", "POST")]
        assert doubled([a, b]) == ["2"] and doubled([a, b], "POST") == []
        a.start()
        with Client(a.port) as client:
            assert client.get("/r/1").status == 200
        assert doubled([a, b]) == ["1", "2"]


def test_a_load_sees_what_is_wrong(tmp_path, town):
    """... and a load takes no cut or mixed up answer for a good one."""
    there = town(1, how={"do": "close-middle", "share": 0.5}, pool={"outlier": "off"})
    with there.load(clients=4) as load:
        load.wait(100)
    assert 20 < len(load.failures()) < len(load.sent) - 20


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


@ONE_AND_FOUR
@pytest.mark.parametrize("checks", ["default", "off"])
def test_kill_9_of_one_of_three(town, workers, checks):
    """GETs: nobody notices, neither that it dies nor that it comes back, nor that it dies again."""
    pool = {"health": {}} if checks == "default" else {"health": "off", "outlier": {"eject": "1s"}}
    there = town(workers=workers, pool=pool)
    victim = there.recorders[0]
    with there.load() as load:
        load.wait(300)
        for _ in range(2 if checks == "off" else 1):  # with the default checks it takes seconds until it is back
            victim.kill()
            load.wait(500)
            if checks == "default":
                there.lb.wait_health(victim, "down")
            victim.start()
            there.wait_served_by(victim)
            load.wait(100)
    there.report(f"kill -9, checks {checks}, {workers} workers", load)
    assert load.failures() == []
    assert there.retried() > 0
    there.wait_quiet()


@ONE_AND_FOUR
def test_kill_9_of_one_of_three_with_posts(town, workers):
    """Those that it was working on may fail, because nobody can know what it has done; nothing else, and none twice."""
    there = town(workers=workers, pool={"health": CHECKS_SOON})
    there.wait_health()
    victim = there.recorders[0]
    with there.load(methods=("POST",)) as load:
        load.wait(300)
        victim.kill()
        killed = time.monotonic()
        load.wait(500)
        there.lb.wait_health(victim, "down")
        victim.start()
        there.wait_served_by(victim)
        load.wait(100)
    there.report(f"kill -9, {workers} workers", load)
    assert there.doubled() == []
    assert load.failures(since=killed + 0.5) == []
    assert len(load.failures()) <= IN_FLIGHT and {sent.outcome for sent in load.failures()} <= {502}
    there.wait_quiet()


# ---- SIGSTOP ---------------------------------------------------------------------------------------------------------


@ONE_AND_FOUR
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_sigstop_of_one_of_three(town, workers, method):
    """It accepts and never answers: until checks say that it is down nothing is known. Then GETs move on; POSTs wait,
    and are answered when it goes on."""
    there = town(workers=workers, pool={"health": CHECKS_SOON})
    there.wait_health()
    victim = there.recorders[0]
    with there.load(methods=(method,)) as load:
        load.wait(200)
        victim.stop()
        there.lb.wait_health(victim, "down")
        if method == "GET":
            load.wait(500)
            eventually(lambda: there.lb.backend(victim)["in_flight"] == 0, "nobody waits for it any more")
        else:
            assert there.lb.backend(victim)["in_flight"] > 0
        victim.go_on()
        there.lb.wait_health(victim, "up")
        there.wait_served_by(victim)
        load.wait(100)
    there.report(f"SIGSTOP, {workers} workers", load)
    assert load.failures() == []
    assert there.doubled("POST") == []
    if method == "GET":
        assert there.retried() > 0
    there.wait_quiet()


# ---- flapping, and all of them ---------------------------------------------------------------------------------------


@ONE_AND_FOUR
def test_a_backend_that_flaps(town, workers):
    there = town(workers=workers, pool={"health": CHECKS_SOON})
    there.wait_health()
    with there.load() as load:
        load.wait(100)
        there.recorders[0].set(flap=1)
        load.last(3.5)
        there.recorders[0].set(flap=0)
        there.lb.wait_health(there.recorders[0], "up")
        there.wait_served_by(there.recorders[0])
    there.report(f"flapping each second, {workers} workers", load)
    assert load.failures() == []
    there.wait_quiet()


@ONE_AND_FOUR
@pytest.mark.parametrize("checks", ["on", "off"])
def test_all_backends_gone_and_back(town, workers, checks):
    """While there is none, clients hear so at once; when there is one again, nothing holds it back."""
    pool = {"health": CHECKS_SOON if checks == "on" else "off", "outlier": {"eject": "1s", "eject_max": "1s"}}
    there = town(workers=workers, pool=pool)
    if checks == "on":
        there.wait_health()
    with there.load(pause=lambda: 0.02) as load:
        load.wait(100)
        for recorder in there.recorders:
            recorder.kill()
        killed = time.monotonic()
        if checks == "on":
            there.wait_health("down")
        load.wait(200)
        for recorder in there.recorders:
            recorder.start()
        started = time.monotonic()
        if checks == "on":
            there.wait_health("up")
        for recorder in there.recorders:
            there.wait_served_by(recorder)
        settled = time.monotonic()
        load.wait(200)
    there.report(f"all gone and back, checks {checks}, {workers} workers", load)
    gone = [sent for sent in load.sent if killed <= sent.began <= started]
    assert {sent.outcome for sent in load.failures()} <= {502, 503}
    assert max(sent.seconds for sent in gone) < 2, "a client had to wait for nothing"
    assert min(sent.began for sent in load.sent if sent.began > started and sent.outcome == 200) - started < 3
    assert load.failures(since=settled) == []
    if checks == "on":
        assert {row["health"] for row in there.lb.vbctl("backends")["backends"]} == {"up"}
    there.wait_quiet()
