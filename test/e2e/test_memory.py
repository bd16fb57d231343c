"""What a burst of clients has taken is given back when it is over, whoever of them stays."""
import pytest
from harness import MEASURABLE, SANITIZED, Client, eventually, get, held, memory_kib

CLIENTS, STAY = 600, 20
KIB_EACH = 48  # of a worker's memory that a request takes here, at least
SPARE_KIB = 1024  # of each worker: what it needs for those that stay, and what an allocator keeps anyway


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def burst(lb, there):
    """Requests that wait at the backend, with much in their heads and bodies that are kept for a further try."""
    clients = [Client(lb.port) for _ in range(CLIENTS)]
    before = len(there.requests)
    for client in clients:
        client.start("PUT", "/slow", [("Cookie", "c" * 3000)] * 4, b"b" * 32768)
    there.wait_requests(before + CLIENTS)
    return clients


def test_memory_comes_back_after_a_burst(balancer, backend, workers):
    lb = balancer(there := backend(held, record=False), workers=workers, args=["--log-level", "debug"],
                  pool={"circuit_breaker": {"max_pending": 0}}, env=MEASURABLE)
    assert [get(lb.port).status for _ in range(10 * workers)] == [200] * 10 * workers
    pids = lb.worker_pids()

    def memory():
        return sum(memory_kib(pid, "RssAnon") for pid in pids)

    before = memory()
    clients = burst(lb, there)
    assert memory() - before > CLIENTS * KIB_EACH, "a burst that takes no memory shows nothing"
    stay = clients[::CLIENTS // STAY]  # one in the midst of others' memory is enough to keep it where nobody sees to it
    there.released.set()
    for client in clients:
        if client in stay:
            assert client.response("PUT").status == 200
        else:
            client.close()
    eventually(lambda: lb.total("connections") == len(stay), "most have gone")
    for worker in range(workers):
        lb.wait_log(rf"debug worker {worker}: memory .* given back")
    if not SANITIZED:  # theirs is another allocator
        eventually(lambda: memory() - before < workers * SPARE_KIB, f"as little memory as before: {before} KiB")
    assert [client.get().status for client in stay] == [200] * len(stay)
    assert lb.worker_pids() == pids
