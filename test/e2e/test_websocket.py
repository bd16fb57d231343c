"""WebSocket as programs speak it: the library python3-websockets on both sides (RFC 6455)."""
import asyncio
import os
import random
import signal
import threading

import pytest
from harness import TIMEOUT, eventually, free_port, is_refused

websockets = pytest.importorskip("websockets")
HEADERS = "extra_headers" if int(websockets.__version__.split(".")[0]) < 14 else "additional_headers"


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Since version 15 it would ask the environment for one."""
    monkeypatch.setenv("no_proxy", "*")


async def echo(socket):
    async for message in socket:
        await socket.send(message)


class Server:
    """A WebSocket server in a thread of its own; `closed`: the codes and reasons with which its connections ended."""

    def __init__(self, handler=echo, **options):
        self.handler = handler
        self.options = {"max_size": None, "ping_interval": None, **options}
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.closed, self.open, self.heads, self.paths = [], 0, [], []
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    async def _serve(self, socket):
        request = getattr(socket, "request", None)  # since version 14
        self.heads.append(request.headers if request else socket.request_headers)
        self.paths.append(request.path if request else socket.path)
        self.open += 1
        try:
            await self.handler(socket)
            await socket.wait_closed()
        except websockets.exceptions.ConnectionClosed:
            pass
        self.open -= 1
        self.closed.append((socket.close_code, socket.close_reason))

    async def _run(self):
        self._stop = asyncio.Event()
        async with websockets.serve(self._serve, "127.0.0.1", self.port, **self.options):
            self._ready.set()
            await self._stop.wait()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(TIMEOUT)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT)


@pytest.fixture
def server(lifetimes):
    return lambda *args, **options: lifetimes.enter_context(Server(*args, **options))


def connect(lb, path="/chat", **options):
    return websockets.connect(f"ws://127.0.0.1:{lb.port}{path}", **{"max_size": None, "ping_interval": None, **options})


def go(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 2 * TIMEOUT))


def all_over(lb):
    lb.wait_idle()
    eventually(lambda: lb.total("tunnels") == 0 and lb.total("connections") == 0, "nothing is left")


def test_messages_pings_and_the_end(balancer, server, workers):
    there = server()
    lb = balancer(there, workers=workers)

    async def talk():
        async with connect(lb, "/chat?room=1", **{HEADERS: {"X-One": "1"}}) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await socket.send(b"\0\xff binary")
            assert await socket.recv() == b"\0\xff binary"
            await asyncio.wait_for(await socket.ping(), TIMEOUT)
            await socket.send(["in ", "pieces", "!"])
            assert await socket.recv() == "in pieces!"
            await socket.send("")
            assert await socket.recv() == ""
            await socket.close(4000, "that was all")
        assert (socket.close_code, socket.close_reason) == (4000, "that was all")
    go(talk())
    eventually(lambda: there.closed == [(4000, "that was all")], "the server has seen the end")
    assert there.paths == ["/chat?room=1"]
    assert there.heads[0]["X-One"] == "1" and there.heads[0]["X-Forwarded-For"] == "127.0.0.1"
    all_over(lb)


def test_the_server_ends_it(balancer, server, workers):
    async def one_word(socket):
        await socket.send("bye")
        await socket.close(4001, "enough")
    there = server(one_word)
    lb = balancer(there, workers=workers)

    async def listen():
        async with connect(lb) as socket:
            assert await socket.recv() == "bye"
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                await socket.recv()
            return socket.close_code, socket.close_reason
    assert go(listen()) == (4001, "enough")
    all_over(lb)


def test_large_messages(balancer, server, workers):
    lb = balancer(server(), workers=workers)
    message, text = random.randbytes(1 << 20), "é" * (1 << 19)

    async def talk():
        async with connect(lb) as socket:
            for _ in range(5):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send(text)
            assert await socket.recv() == text
    go(talk())
    all_over(lb)


def test_large_messages_both_ways_at_once(balancer, server):
    async def send_many(socket):
        sender = asyncio.ensure_future(send(socket))
        assert [len(await socket.recv()) for _ in range(10)] == [1 << 20] * 10
        await sender

    async def send(socket):
        for _ in range(10):
            await socket.send(bytes(1 << 20))
    there = server(send_many)
    lb = balancer(there)

    async def talk():
        async with connect(lb) as socket:
            await send_many(socket)
    go(talk())
    eventually(lambda: there.closed == [(1000, "")], "it ended well")


def test_a_hundred_at_once(balancer, server, workers):
    servers = [server(), server()]
    lb = balancer(servers, workers=workers, pool={"balance": "least_conn"})

    async def all_of_them():
        there, left = asyncio.Event(), [100]

        async def one(i):
            async with connect(lb, open_timeout=TIMEOUT) as socket:
                left[0] -= 1
                if left[0] == 0:
                    assert [lb.backend(backend)["in_flight"] for backend in servers] == [50, 50]
                    assert lb.total("tunnels") == 100
                    there.set()
                await there.wait()
                for j in range(10):
                    await socket.send(f"{i}-{j} " + "x" * j * 100)
                    assert (await socket.recv()).startswith(f"{i}-{j} ")
                await asyncio.wait_for(await socket.ping(), TIMEOUT)
        await asyncio.gather(*map(one, range(100)))
    go(all_of_them())
    all_over(lb)
    eventually(lambda: [code for backend in servers for code, _ in backend.closed] == [1000] * 100, "all ended well")


def test_subprotocols_and_a_refusal(balancer, server):
    there = server(subprotocols=["soap", "wamp"], origins=["http://good.example"])
    lb = balancer(there)

    async def talk():
        async with connect(lb, subprotocols=["wamp", "other"], origin="http://good.example") as socket:
            assert socket.subprotocol == "wamp"
        with pytest.raises(websockets.exceptions.InvalidHandshake) as refused:
            async with connect(lb, origin="http://evil.example"):
                pass
        response = getattr(refused.value, "response", None)
        assert (response or refused.value).status_code == 403
    go(talk())
    all_over(lb)


def test_pings_keep_it_alive(balancer, server):
    """They are bytes like any other: timeouts.tunnel is for those who say nothing at all."""
    there = server(ping_interval=0.2)
    lb = balancer(there, config={"timeouts": {"tunnel": "1s"}})

    async def wait():
        async with connect(lb) as socket:
            await asyncio.sleep(2.5)
            await socket.send("still here")
            assert await socket.recv() == "still here"
    go(wait())


def test_a_stop_lets_them_end_well(balancer, server, workers):
    there = server()
    lb = balancer(there, workers=workers)

    async def talk():
        async with connect(lb) as socket:
            lb.ask_to_stop()
            await asyncio.get_running_loop().run_in_executor(
                None, lambda: eventually(lambda: is_refused(lb.port), "it stops"))
            await socket.send("one more")
            assert await socket.recv() == "one more"
    go(talk())
    lb.stop()
    assert there.closed == [(1000, "")]


def test_a_crash_is_seen_by_both_and_is_no_end(balancer, server, workers):
    there = server()
    lb = balancer(there, workers=workers)

    async def talk():
        async with connect(lb) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            victim, = [row["pid"] for row in lb.worker_rows() if row["tunnels"] == 1]
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(websockets.exceptions.ConnectionClosedError):
                await socket.recv()
            return victim
    victim = go(talk())
    eventually(lambda: there.closed == [(1006, "")], "the server has noticed")
    lb.wait_workers(without=[victim])
    all_over(lb)

    async def again():
        async with connect(lb) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
    go(again())
