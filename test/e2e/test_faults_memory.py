"""Each Nth allocation of a worker fails, under load: see test/faults/faults.c."""
import pytest
from harness import Truncated

LONG = ("X-Long", "x" * 2000)  # a head of which a copy needs memory of its own


def check_outcomes(load):
    """Answered, rightly, or 500, or closed: never anything else."""
    for sent in load.failures():
        assert sent.outcome == 500 or isinstance(sent.outcome, (Truncated, ConnectionError)), sent


@pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")
@pytest.mark.parametrize("every, share", [(0, 1), (333, 0.95), (50, 0.7), (7, 0.1)])
def test_allocations_that_fail(town, workers, every, share):
    """With connections that come and go on both sides, so that there is much to allocate."""
    there = town(workers=workers, program="vibebalancer-faults", env={"VB_FAIL_EVERY": str(every)},
                 how={"close": True}, config={"limits": {"requests_per_connection": 5}})
    pids = there.lb.worker_pids()
    with there.load(methods=("GET", "PUT"), headers=[LONG]) as load:
        load.wait(1000)
    there.report(f"each {every}th allocation fails, {workers} workers", load)
    check_outcomes(load)
    assert (load.failures() != []) == (every > 0)
    assert len(load.failures()) <= (1 - share) * len(load.sent)
    there.wait_quiet()
    assert sum(row["errors"] for row in there.lb.vbctl("backends")["backends"]) == 0, "it was not the backends' fault"
    assert there.lb.worker_pids() == pids, "a worker died"


def test_allocations_that_fail_while_requests_are_tried_again(town):
    there = town(workers=2, program="vibebalancer-faults", env={"VB_FAIL_EVERY": "20"}, how={"do": "reset", "share": 0.05},
                 config={"limits": {"requests_per_connection": 5}}, pool={"outlier": "off"})
    pids = there.lb.worker_pids()
    with there.load(methods=("GET", "PUT", "POST"), headers=[LONG]) as load:
        load.wait(1000)
    there.report("each 20th allocation fails while requests are tried again", load)
    for sent in load.failures():
        assert sent.outcome in (500, 502) or isinstance(sent.outcome, (Truncated, ConnectionError)), sent
    assert there.doubled("POST") == []
    there.wait_quiet()
    assert there.lb.worker_pids() == pids, "a worker died"
