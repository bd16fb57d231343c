"""Backups and slow start: who gets requests only when others cannot, and who gets fewer because he has just come."""
import os
import signal
import time
from collections import Counter

import pytest
from harness import eventually, get, reply, run


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def do(lb, *command):
    result = run("vbctl", "--name", lb.name, *command)
    assert result.returncode == 0, result.stderr


def served(lb, n):
    return Counter(get(lb.port).text for _ in range(n))


def kill_one(lb):
    gone = lb.worker_pids()[0]
    os.kill(gone, signal.SIGKILL)
    lb.wait_workers(without=[gone])


def test_backups_wait_until_no_other_is_usable(balancer, backend, workers):
    first, second, spare = [backend(reply(name)) for name in ("first", "second", "spare")]
    lb = balancer([{"address": first.address, "name": "first"}, {"address": second.address, "name": "second"},
                   {"address": spare.address, "name": "spare", "backup": True}], workers=workers)
    for change in (lambda: None, lb.reload, lambda: kill_one(lb)):
        change()
        assert served(lb, 12) == {"first": 6, "second": 6}
        do(lb, "maint", "web/first")
        assert served(lb, 12) == {"second": 12}
        do(lb, "maint", "web/second")
        assert served(lb, 12) == {"spare": 12}
        do(lb, "ready", "web/first")
        assert served(lb, 12) == {"first": 12}
        do(lb, "ready", "web/second")


def test_a_request_that_all_others_have_failed_goes_to_a_backup(balancer, backend, workers):
    dead, spare = backend(reply("dead")), backend(reply("spare"))
    lb = balancer([dead.address, {"address": spare.address, "backup": True}], workers=workers)
    assert served(lb, 4) == {"dead": 4}
    dead.stop()
    assert served(lb, 8) == {"spare": 8}


def test_who_is_ready_again_starts_slowly(balancer, backend, workers):
    """What it has reached, and when it began, is known to new workers too."""
    there = {name: backend(reply(name)) for name in ("warm", "cold")}
    lb = balancer([{"address": b.address, "name": name} for name, b in there.items()], workers=workers,
                  pool={"slow_start": "3s"})
    assert served(lb, 40) == {"warm": 20, "cold": 20}  # both have come at the same time
    time.sleep(3)  # for both have all of their share
    do(lb, "maint", "web/cold")
    do(lb, "ready", "web/cold")
    assert served(lb, 40)["cold"] <= 12
    kill_one(lb)
    lb.reload()
    eventually(lambda: abs(served(lb, 40)["cold"] - 20) <= 2, "it has its share")
