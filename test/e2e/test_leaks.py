"""After many requests of all kinds and a stop, nothing has leaked: the sanitizers say so, and so do the figures."""
import os

from harness import MEASURABLE, Client, at_once, eventually, exchange, get, memory_kib, open_files, post, reply

REQUESTS = int(os.environ.get("VB_LEAK_REQUESTS", "10000"))


def test_ten_thousand_requests_and_a_stop(balancer, demos):
    lb = balancer(demos(3), workers=2)

    def batch(i):
        with Client(lb.port) as client:
            for _ in range(REQUESTS // 80):
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)  # pipelined, ten at a time
                assert [client.response().status for _ in range(10)] == [200] * 10
    at_once(8, batch)
    lb.wait_idle()
    assert lb.vbctl("status")["requests"] == REQUESTS // 80 * 80
    assert sum(row["requests"] for row in lb.vbctl("backends")["backends"]) == REQUESTS // 80 * 80
    lb.stop()  # a leak fails it


def test_all_kinds_of_trouble_and_a_stop(balancer, backend):
    def answer(connection, request):
        if request.target == "/reset":
            connection.reset()
        elif request.target == "/garbage":
            connection.send(b"garbage\r\n\r\n")
        elif request.target == "/cut":
            connection.send(reply(b"x" * 1000)[:-10])
            connection.close()
        elif request.target == "/surplus":
            connection.send(reply() + b"surplus")
        elif request.target == "/close":
            connection.send(reply(headers=[("Connection", "close")]))
        else:
            connection.send(reply())
    lb = balancer(backend(answer), pool={"keepalive": {"timeout": "200ms"}}, env=MEASURABLE)
    worker, = lb.worker_pids()

    def trouble(_=None):
        for target in ("/", "/reset", "/garbage", "/surplus", "/close"):
            get(lb.port, target)
        exchange(lb.port, b"nonsense\r\n\r\n")
        post(lb.port, "/", b"x" * 200000)
        for begin in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n",
                      b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
                      b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n"):
            with Client(lb.port) as client:
                client.send(begin)
                client.reset()

    def rounds(n):
        for _ in range(n):
            at_once(4, trouble)
        eventually(lambda: lb.vbctl("status")["connections"] == 0, "no client is left")
        lb.wait_idle()
    rounds(5)
    files, memory = open_files(worker), [memory_kib(worker)]
    while len(memory) < 4 or memory[-1] - memory[-4] > 200:  # allocators take a while to have all they ever need
        assert len(memory) < 25, f"it grows and grows: {memory} KiB"
        rounds(5)
        memory.append(memory_kib(worker))
    eventually(lambda: open_files(worker) <= files, f"as many descriptors as before: {files}")
    lb.stop()
