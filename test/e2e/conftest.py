"""The fixtures: each makes as many things as a test asks for, and ends them, with their own checks, after it."""
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from faults import Recorder, Town  # noqa: E402
from harness import Backend, Balancer, Demo, go_on, web  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    item.failed = getattr(item, "failed", False) or report.failed


@pytest.fixture
def lifetimes(request):
    """An ExitStack that knows whether the test failed: then a balancer is killed, not judged a second time."""
    stack = ExitStack()
    yield stack
    if getattr(request.node, "failed", False):
        failure = AssertionError("the test failed")
        stack.__exit__(AssertionError, failure, None)
    else:
        stack.close()


@pytest.fixture(params=[1, 2, 4], ids=lambda n: f"workers={n}")
def workers(request):
    """A test that asks for this runs with 1, 2 and 4 workers."""
    return request.param


@pytest.fixture
def backend(lifetimes):
    """backend(answer=..., ...) -> harness.Backend"""
    return lambda *args, **options: lifetimes.enter_context(Backend(*args, **options))


@pytest.fixture
def demos(lifetimes):
    """demos(n, *arguments) -> vbdemo processes named a, b, c, ..."""
    return lambda n, *args: [lifetimes.enter_context(Demo("abcdefghij"[i], *args)) for i in range(n)]


@pytest.fixture
def balancer(lifetimes, tmp_path):
    """balancer(backends, workers=1, pool={...}, config={...}) -> harness.Balancer with the pool `web`, and more_pools

    `backends` is one or a list of: Backend, Demo, "host:port", {"address": ..., "weight": ...}. Health checks are off
    unless `pool` has some.
    """
    def make(backends, *, pool=None, more_pools=None, **options):
        backends = backends if isinstance(backends, list) else [backends]
        pools = {**web(backends, **(pool or {})), **(more_pools or {})}
        lb = lifetimes.enter_context(Balancer(tmp_path, pools, **options))
        for there in backends:
            if hasattr(there, "released"):  # before the balancer is stopped: what they still hold would delay that
                lifetimes.callback(there.released.set)
        return lb
    return make


@pytest.fixture
def stopped(lifetimes):
    """stopped(*pids): stops the processes; what is still stopped after the test goes on."""
    def make(*pids):
        for pid in pids:
            lifetimes.callback(go_on, pid)
            os.kill(pid, signal.SIGSTOP)
    return make


@pytest.fixture
def town(lifetimes, balancer, tmp_path):
    """town(n=3, how={...}, the options of `balancer`) -> faults.Town: n recorders and a balancer in front of them"""
    def make(n=3, *, how=None, backends=lambda recorders: recorders, **options):
        recorders = [lifetimes.enter_context(Recorder(tmp_path, **(how or {}))) for _ in range(n)]
        return Town(balancer(backends(recorders), **options), recorders)
    return make
