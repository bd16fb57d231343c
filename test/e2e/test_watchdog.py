"""A worker that hangs is named with its last request, killed and replaced; one that is only busy, or stopped together
with the whole machine, is left alone.

SIGSTOP is how a worker hangs here. Times are slept only where time itself is what is tested: a pause of the machine.
"""
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import (Client, Load, at_once, children_of, eventually, get, go_on, hang, is_running, is_stopped, reply,
                     run)

KILLING = r"worker (\d+) \(pid (\d+)\) has not moved for (\d+\.\d) s; (.*): killing it"
LIMIT = {"watchdog": "1s"}


def killings(lb):
    return re.findall(KILLING, lb.log())


def wait_killings(lb, n=1):
    lb.wait_log(KILLING, n)
    return killings(lb)


def slow_or_ok(connection, request):
    hang(connection, request) if request.target.startswith("/slow") else connection.send(reply())


def is_worker(pid):
    """It has come from the fork to its own program, and lives; before that the master itself waits for it."""
    try:
        return is_running(pid) and Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [b"worker"]
    except OSError:
        return False


def row_of(lb, pid):
    return next((row for row in lb.worker_rows() if row["pid"] == pid), None)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_worker_that_hangs_is_named_killed_and_replaced(balancer, backend, stopped, workers):
    there = backend(slow_or_ok)
    lb = balancer(there, workers=workers, config=LIMIT)
    with Client(lb.port) as client:
        client.start("GET", "/slow/one?token=secret")
        there.wait_requests(1)
        victim, = [row for row in lb.worker_rows() if row["in_flight"] == 1]
        assert victim["last_request"] == "GET /slow/one"
        stopped(victim["pid"])
        (index, pid, seconds, request), = wait_killings(lb)
        assert (int(index), int(pid)) == (victim["index"], victim["pid"])
        assert 1 <= float(seconds) < 10
        assert request == 'the last request it took: "GET /slow/one"'
        assert client.is_closed()
    lb.wait_workers(without=[victim["pid"]])
    lb.wait_idle()
    assert lb.backend(there)["in_flight"] == 0
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    assert [row["restarts"] for row in lb.worker_rows()] == [int(row["index"] == victim["index"])
                                                             for row in lb.worker_rows()]
    assert len(killings(lb)) == 1


@pytest.mark.parametrize("workers", [1, 4])
def test_who_waits_in_its_queue_is_served_by_its_successor(balancer, backend, stopped, workers):
    lb = balancer(backend(), workers=workers, config=LIMIT)
    pids = lb.worker_pids()
    stopped(*pids)  # so that every connection comes to one that hangs
    assert [response.status for response in at_once(24, lambda _: get(lb.port))] == [200] * 24
    lb.wait_workers(without=pids)
    found = wait_killings(lb, workers)
    assert sorted(int(pid) for _, pid, _, _ in found) == sorted(pids)
    assert {request for *_, request in found} == {"it has taken no request"}


def test_the_others_go_on(balancer, demos, stopped):
    lb = balancer(demos(2), workers=4, config={"watchdog": "3s"})
    with Load(lb.port, clients=16) as load:
        load.wait(200)
        assert load.failures() == []
        victim = max(lb.worker_rows(), key=lambda row: row["connections"])
        stopped(victim["pid"])
        load.wait(300)  # more than can be under way
        assert killings(lb) == [], "the others had to wait for the watchdog"
        lb.wait_workers(without=[victim["pid"]])
        load.wait(200)
    per_client = Counter(number for number, _ in load.failures())
    assert len(per_client) <= victim["connections"], "connections of other workers failed too"
    assert set(per_client.values()) <= {1}, "a client failed again after it had connected anew"
    (_, pid, _, request), = killings(lb)
    assert (int(pid), request) == (victim["pid"], 'the last request it took: "GET /"')
    lb.wait_idle()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("pauses", [[3.0], [1.2] * 3, [0.45] * 5], ids=["long", "just-over-the-limit", "short"])
def test_a_pause_of_the_whole_machine_is_nobodys_fault(balancer, backend, stopped, workers, pauses):
    lb = balancer(backend(), workers=workers, config=LIMIT)
    pids = lb.worker_pids()
    for pause in pauses:
        stopped(lb.pid, *pids)
        time.sleep(pause)
        go_on(lb.pid)
        time.sleep(0.05)  # the worst order: it looks before they have moved
        go_on(*pids)
        assert get(lb.port).status == 200
    time.sleep(1.5)  # the master has looked since
    assert lb.worker_pids() == pids
    assert killings(lb) == []
    stopped(pids[0])
    assert int(wait_killings(lb)[0][1]) == pids[0], "it is awake again"
    lb.wait_workers(without=pids[:1])


def test_a_master_that_was_stopped_gives_a_fresh_limit(balancer, backend, stopped):
    """It alone: when it goes on, a worker that hangs by then is still found."""
    lb = balancer(backend(), workers=2, config=LIMIT)
    pids = lb.worker_pids()
    stopped(lb.pid)
    time.sleep(2)
    go_on(lb.pid)
    time.sleep(1.5)
    assert lb.worker_pids() == pids and killings(lb) == []
    stopped(lb.pid, pids[0])
    time.sleep(2)
    go_on(lb.pid)
    assert int(wait_killings(lb)[0][1]) == pids[0]
    lb.wait_workers(without=pids[:1])


def test_off_leaves_it_alone(balancer, backend, stopped):
    lb = balancer(backend(), config={"watchdog": "off"})
    pid, = lb.worker_pids()
    stopped(pid)
    eventually(lambda: row_of(lb, pid)["heartbeat_age_ms"] > 3000, "it has been silent for long")
    assert is_running(pid) and killings(lb) == []
    go_on(pid)
    assert get(lb.port).status == 200
    assert lb.worker_pids() == [pid]


def test_vbctl_shows_who_is_late_and_what_it_did(balancer, backend, stopped):
    lb = balancer(backend(), workers=2, config={"watchdog": "off"})
    assert all(row["last_request"] is row["last_request_age_ms"] is None for row in lb.worker_rows())
    get(lb.port, "/a/b?c=d")
    rows = lb.worker_rows()
    assert all(row["heartbeat_age_ms"] is not None for row in rows)
    taken, = [row for row in rows if row["last_request"] is not None]
    assert taken["last_request"] == "GET /a/b" and taken["last_request_age_ms"] >= 0
    eventually(lambda: "HEARTBEAT" not in run("vbctl", "--name", lb.name, "workers").stdout, "nobody is late")
    stopped(taken["pid"])
    table = eventually(lambda: "HEARTBEAT" in (text := run("vbctl", "--name", lb.name, "workers").stdout) and text,
                       "one is late")
    assert re.search(rf"^ *\d+ +{taken['pid']} .* \d+s ago$", table, re.M)
    go_on(taken["pid"])
    eventually(lambda: "HEARTBEAT" not in run("vbctl", "--name", lb.name, "workers").stdout, "nobody is late any more")


@pytest.mark.parametrize("workers", [1, 4])
def test_one_that_is_busy_is_not_killed(balancer, backend, workers):
    """Transfers and requests, as much as the machine can do, for several times the limit."""
    lb = balancer(backend(lambda c, r: c.send(big if r.target == "/big" else reply()), record=False), workers=workers,
                  config=LIMIT)
    big, ended, sizes = reply(bytes(8 << 20)), threading.Event(), []

    def transfer():
        while not ended.is_set():
            sizes.append(len(get(lb.port, "/big").body))
    transfers = [threading.Thread(target=transfer) for _ in range(2)]
    for thread in transfers:
        thread.start()
    try:
        with Load(lb.port, clients=16) as load:
            time.sleep(4)
            eventually(lambda: len(sizes) >= 4 and len(load.outcomes) >= 400, "much has been done")
    finally:
        ended.set()
        for thread in transfers:
            thread.join()
    assert set(sizes) == {8 << 20}
    assert load.failures() == []
    assert killings(lb) == []
    assert lb.total("restarts") == 0


def test_one_that_finishes_its_requests_is_not_killed(balancer, backend):
    """Draining lasts as long as it needs, within shutdown.grace."""
    there = backend(lambda c, r: (c.backend.released.wait(10), c.send(reply())))
    lb = balancer(there, config=LIMIT)
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.ask_to_stop()
        lb.wait_log("finishing requests")
        time.sleep(3)
        there.released.set()
        assert client.response().status == 200
    lb.stop()
    assert killings(lb) == []


def test_one_that_hangs_does_not_delay_the_end(balancer, backend, stopped):
    there = backend(hang)
    lb = balancer(there, workers=2, config={**LIMIT, "shutdown": {"grace": "1h"}})
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        victim, = [row["pid"] for row in lb.worker_rows() if row["in_flight"] == 1]
        stopped(victim)
        lb.ask_to_stop()
        lb.stop()
    assert [int(pid) for _, pid, _, _ in killings(lb)] == [victim]


def test_one_that_does_not_get_ready_is_replaced(balancer, backend, tmp_path):
    """Within 30 s, whatever the limit is: a start may take longer than a turn of the loop."""
    hold = tmp_path / "hold"
    lb = balancer(backend(), config=LIMIT, program="vibebalancer-faults", env={"VB_STOP_AT_START": str(hold)})
    pids = lb.worker_pids()
    hold.touch()
    os.kill(pids[0], signal.SIGKILL)
    newcomer = eventually(lambda: next((pid for pid in children_of(lb.pid) if pid not in pids and is_worker(pid)), None),
                          "a new process")
    eventually(lambda: is_stopped(newcomer), "it has stopped itself")
    hold.unlink()
    with Client(lb.port) as client:
        client.start("GET", "/")
        eventually(lambda: not is_running(newcomer), "it is killed", timeout=60)
        assert client.response().status == 200
    line, = lb.wait_log("still not ready")
    assert re.search(rf"worker 0 \(pid {newcomer}\) is still not ready after 3\d\.\d s: killing it", line)
