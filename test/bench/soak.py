#!/usr/bin/env python3
"""A mixed load for minutes; does any process need more and more memory, or descriptors?

    sh test/bench/soak.sh [--minutes M] [--workers N] [--json FILE]      builds first

Clients that keep their connections and clients that do not, bodies of all sizes, chunked both ways, 1 MiB responses,
slow readers, clients that break off, tunnels, bursts of clients with large heads; backends that fail, reset, are killed
and come back. In the first half the file is reloaded every 20 s, vbctl changes backends, and workers are killed: the
master lives through that, the workers are replaced. In the second half the workers stay.

The load pauses once in a round, until nobody is connected and memory and descriptors have come to rest. What they are
then is compared: of the master over all rounds, of the workers over the second half. Exit status 1 when the last of
these pauses show more than the first, beyond noise, or when a worker has died.

Memory is what /proc calls RssAnon (the process's own) and RssShmem (the segment's pages that it has touched).
"""
import argparse
import asyncio
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import peers  # noqa: F401  first: says where the harness is
from harness import TIMEOUT, Balancer, Demo, free_port, open_files, run, web

RELOAD_EVERY, TROUBLE_EVERY = 20, 6  # seconds
KILL_EVERY = 3  # troubles
BURST = 300  # clients at once
NOISE = {"anon": 256, "shmem": 64, "files": 2}  # KiB, KiB, descriptors; a leak of a few bytes for each request is more
REST = 5  # seconds without a change
REST_MAX = 60
BREAKS = (OSError, EOFError, asyncio.TimeoutError)
COOKIES = b"".join(b"Cookie: c%d=%s\r\n" % (i, b"v" * 3000) for i in range(4))

# ---- clients ---------------------------------------------------------------------------------------------------------


def request(method, target, body=None, fields=b""):
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return f"{method} {target} HTTP/1.1\r\nHost: soak\r\n".encode() + length + fields + b"\r\n" + (body or b"")


def chunked(target, body):
    parts = [request("POST", target, fields=b"Transfer-Encoding: chunked\r\n")]
    while body:
        n = random.randint(1, 20000)
        parts.append(b"%x\r\n%s\r\n" % (len(body[:n]), body[:n]))
        body = body[n:]
    return b"".join(parts) + b"0\r\n\r\n"


class Connection:
    """Of a client, to the end of the block; reads no more of HTTP than is needed."""

    def __init__(self, port, receive_buffer=None):
        self.port, self.receive_buffer = port, receive_buffer

    async def __aenter__(self):
        sock = socket.socket()
        sock.setblocking(False)
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=65536)
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()

    def reset(self):
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def head(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.closes = b"\r\nconnection: close\r\n" in head.lower()
        return head

    async def ask(self, data):
        """The status of the response, which is read whole."""
        async with asyncio.timeout(TIMEOUT):
            self.writer.write(data)  # without a drain: an answer may come before all of it was taken
            head = await self.head()
            if b"\r\nTransfer-Encoding: chunked\r\n" in head:
                while (size := int(await self.reader.readline(), 16)) > 0:
                    await self.reader.readexactly(size + 2)
                await self.reader.readexactly(2)
            else:
                left = int(re.search(rb"\r\nContent-Length: (\d+)\r\n", head)[1])
                while left > 0:
                    if not (data := await self.reader.read(min(left, 65536))):
                        raise EOFError
                    left -= len(data)
            return int(head[9:12])


def some_bytes():
    return bytes(random.choice((0, 1, 500, 5000, 20000, 65536, 200000, 1 << 20)))


class Clients:
    """Each kind is a client that does one thing; it is begun again until the load stops."""

    def __init__(self, port):
        self.port = port
        self.outcomes = defaultdict(Counter)  # by kind: statuses, and what else happened
        self.running = False

    def note(self, kind, outcome):
        self.outcomes[kind][outcome] += 1

    async def keep(self, pause=0.02):
        async with Connection(self.port) as one:
            for _ in range(random.randint(1, 200)):
                self.note("keep-alive", await one.ask(request("GET", "/")))
                if one.closes or not self.running:
                    return
                await asyncio.sleep(pause)

    async def fresh(self):
        async with Connection(self.port) as one:
            self.note("new connection", await one.ask(request("GET", "/info")))
        await asyncio.sleep(0.05)

    async def post(self):
        async with Connection(self.port) as one:
            for _ in range(5):
                method, target = random.choice(("POST", "PUT")), random.choice(("/echo", "/sink"))
                self.note("bodies", await one.ask(request(method, target, some_bytes())))
                if one.closes:
                    return
                await asyncio.sleep(0.05)

    async def chunks(self):
        async with Connection(self.port) as one:
            self.note("chunked up", await one.ask(chunked("/sink", some_bytes())))
            if not one.closes:
                down = request("GET", f"/bytes?n={len(some_bytes())}&chunked=1")
                self.note("chunked down", await one.ask(down))
        await asyncio.sleep(0.05)

    async def large(self):
        async with Connection(self.port) as one:
            self.note("1 MiB", await one.ask(request("GET", f"/bytes?n={1 << 20}")))
        await asyncio.sleep(0.1)

    async def slow(self):
        """It leaves before it has all."""
        async with Connection(self.port, receive_buffer=4096) as one:
            await one.send(request("GET", f"/bytes?n={8 << 20}"))
            status = int((await one.head())[9:12])
            if status != 200:  # of a backend that fails: a short one, behind which nothing comes
                self.note("slow readers", status)
                return
            end = time.monotonic() + random.uniform(0.5, 6)
            while time.monotonic() < end and self.running and await one.reader.read(8192):
                await asyncio.sleep(0.02)
            self.note("slow readers", "left")

    async def breaks_off(self):
        body = bytes(100000)
        whole = random.choice((request("GET", "/", fields=COOKIES), request("POST", "/echo", body),
                               request("GET", f"/bytes?n={1 << 20}"), request("GET", "/work?ms=300"),
                               chunked("/sink", body), b"nonsense\r\n\r\n"))
        async with Connection(self.port) as one:
            await one.send(whole[:random.choice((0, 5, 40, len(whole) // 2, len(whole)))])
            await asyncio.sleep(random.choice((0, 0.01, 0.2)))
            if random.random() < 0.5:
                one.reset()
            self.note("break off", "done")
        await asyncio.sleep(0.05)

    async def tunnel(self):
        async with Connection(self.port) as one:
            await one.send(request("GET", "/tunnel", fields=b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
            self.note("tunnels", int((await one.head())[9:12]))
            for _ in range(random.randint(0, 30)):
                message = bytes(random.choice((1, 100, 50000)))
                await one.send(message)
                await one.reader.readexactly(len(message))
                await asyncio.sleep(0.02)
            how = random.choice(("close", "finish", "reset"))
            if how == "finish":
                one.writer.write_eof()
                await one.reader.read()
            elif how == "reset":
                one.reset()

    async def burst(self):
        """All at once, and some of them stay a while."""
        async def one_of_them():
            async with Connection(self.port) as one:
                self.note("bursts", await one.ask(request("PUT", "/work?ms=500", bytes(32768), COOKIES)))
                if random.random() < 0.1 and self.running:
                    await asyncio.sleep(5)
        await asyncio.gather(*(self.guarded(one_of_them, "bursts") for _ in range(BURST)))
        await asyncio.sleep(random.uniform(8, 12))

    KINDS = {keep: 32, fresh: 6, post: 6, chunks: 4, large: 4, slow: 8, breaks_off: 8, tunnel: 6, burst: 1}

    async def guarded(self, act, kind):
        try:
            async with asyncio.timeout(2 * TIMEOUT):
                await act()
        except BREAKS as error:
            self.note(kind, type(error).__name__)
            await asyncio.sleep(0.05)

    async def repeat(self, kind):
        while self.running:
            await self.guarded(lambda: kind(self), kind.__name__)

    async def play(self, seconds):
        self.running = True
        all_of_them = [asyncio.create_task(self.repeat(kind)) for kind, n in self.KINDS.items() for _ in range(n)]
        await asyncio.sleep(seconds)
        self.running = False
        await asyncio.gather(*all_of_them)


# ---- backends and trouble --------------------------------------------------------------------------------------------


async def tunnels(port):
    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except BREAKS:
            pass
        finally:
            writer.close()
    return await asyncio.start_server(serve, "127.0.0.1", port)


class Trouble:
    """One backend after the other fails, resets, or is killed and comes back; with `changes`, workers are killed too,
    and vbctl and reloads change what is served."""

    def __init__(self, lb, demos, pools):
        self.lb, self.demos, self.pools = lb, demos, pools
        self.turn = self.reloads = self.kills = self.commands = self.killed_workers = 0

    async def play(self, changes):
        begin, reloads = time.monotonic(), 0
        while True:
            await self.one(self.demos[self.turn % len(self.demos)])
            self.turn += 1
            if changes:
                await asyncio.to_thread(self.command)
                if self.turn % KILL_EVERY == 0:
                    await asyncio.to_thread(self.kill_worker)
                if time.monotonic() - begin > reloads * RELOAD_EVERY:
                    reloads += 1
                    await asyncio.to_thread(self.reload)
            await asyncio.sleep(TROUBLE_EVERY - 2)

    async def one(self, demo):
        how = ("killed", "fail=30%", "reset=30%")[self.turn // len(self.demos) % 3]
        if how == "killed":
            self.kills += 1
            demo.kill()
        else:
            demo.control(how)
        try:
            await asyncio.sleep(2)
        finally:  # when the load ends in the midst of it, too
            if how == "killed":
                demo.process.stdout.close()
                demo.start()
            else:
                demo.control("normal=1")

    def command(self):
        backend = "web/" + random.choice(self.demos).address
        for arguments in (("drain", backend), ("weight", backend, random.randint(1, 9)), ("maint", backend),
                          ("ready", backend), ("status",), ("backends",)):
            result = run("vbctl", "--name", self.lb.name, *arguments)
            assert result.returncode == 0, result
            self.commands += 1

    def kill_worker(self):
        victim = random.choice(self.lb.worker_pids())
        os.kill(victim, signal.SIGKILL)
        self.lb.wait_workers(without=[victim])
        self.killed_workers += 1

    def reload(self):
        self.reloads += 1
        weights = [{"address": demo.address, "weight": random.randint(1, 3)} for demo in self.demos]
        self.lb.reload(pools={**self.pools, "web": {**self.pools["web"], "backends": weights}})


# ---- what is measured ------------------------------------------------------------------------------------------------


def needs(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    found = {name: int(re.search(rf"^Rss{field}:\s+(\d+)", text, re.M)[1])
             for name, field in (("anon", "Anon"), ("shmem", "Shmem"))}
    return {**found, "files": open_files(pid)}


class Watch:
    """Of each process: what it needed at the start, in the pauses, at most, and when the last load ended."""

    def __init__(self, lb):
        self.lb = lb
        self.pids = self._processes()
        self.start = self.all()
        self.last = dict(self.start)  # under load
        self.most = {name: Counter() for name in self.pids}
        self.restarts = 0  # of workers, before they were to stay
        self.pauses = []  # (may its workers be compared with those of the next?, {process: what it needs})

    def _processes(self):
        rows = [row for row in self.lb.worker_rows() if row["state"] == "ready"]
        return {"master": self.lb.pid, **{f"worker {row['index']}": row["pid"] for row in rows}}

    def count_restarts(self):
        return sum(row["restarts"] for row in self.lb.worker_rows())

    def all(self):
        return {name: needs(pid) for name, pid in self.pids.items()}

    async def sample(self):
        """Each second; what workers that are being replaced still need is not seen."""
        while True:
            self.pids = await asyncio.to_thread(self._processes)
            for name, pid in self.pids.items():
                try:
                    now = needs(pid)
                except OSError:
                    continue  # it has just been replaced
                self.last[name] = now
                self.most[name] = Counter({field: max(self.most[name][field], now[field]) for field in now})
            await asyncio.sleep(1)

    def rest(self):
        """Waits for the pause to be one."""
        end = time.monotonic() + REST_MAX
        self.lb.wait_idle()
        self.lb.wait_old_gone()
        self.lb.wait_workers()
        self.pids = self._processes()
        last, since = None, time.monotonic()
        while time.monotonic() - since < REST:
            status, now = self.lb.vbctl("status"), self.all()
            if now != last or status["connections"] > 0:
                last, since = now, time.monotonic()
            if time.monotonic() > end:
                raise SystemExit(f"no rest within {REST_MAX} s: {status['connections']} connections, {now}")
            time.sleep(0.2)
        return last


def growth(pauses, field):
    """Of the last three against the first three, or fewer: medians, because allocators vary a little."""
    n = min(3, len(pauses) // 2)
    values = [pause[field] for pause in pauses]
    return statistics.median(values[-n:]) - statistics.median(values[:n])


# ---- all of it -------------------------------------------------------------------------------------------------------


async def soak(lb, watch, trouble, tunnel_port, options):
    server = await tunnels(tunnel_port)
    clients = Clients(lb.port)
    end = time.monotonic() + 60 * options.minutes
    for turn in range(options.rounds):
        changes = turn < options.rounds // 2
        if turn == options.rounds // 2:
            watch.restarts = watch.count_restarts()
        seconds = max(5, (end - time.monotonic()) / (options.rounds - turn) - REST - 6)
        beside = [asyncio.create_task(watch.sample()), asyncio.create_task(trouble.play(changes))]
        await clients.play(seconds)
        for task in beside:
            task.cancel()
        for result in await asyncio.gather(*beside, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                raise result
        now = await asyncio.to_thread(watch.rest)
        watch.pauses.append((now, dict(watch.pids)))
        said = ", ".join(f"{name} {need['anon']}+{need['shmem']} KiB, {need['files']}" for name, need in now.items())
        print(f"round {turn + 1} of {options.rounds}: {said} descriptors", file=sys.stderr)
    server.close()
    return clients.outcomes


def verdicts(watch):
    """(process, its pauses that are compared, {what: how much it has grown})"""
    for name in watch.start:
        last_pid = watch.pauses[-1][1][name]
        compared = [now[name] for now, pids in watch.pauses if pids[name] == last_pid]
        yield name, compared, {field: growth(compared, field) for field in NOISE}


def cells(needed):
    return f"{needed['anon']} + {needed['shmem']}, {needed['files']}"


def table(watch, found):
    yield "RssAnon + RssShmem in KiB, open descriptors:\n"
    yield "| process | start | after warm-up | most under load | at the end of it | after the load | pauses compared " \
          "| growth |"
    yield "|---|" + "---:|" * 7
    for name, compared, grown in found:
        columns = (watch.start[name], watch.pauses[0][0][name], watch.most[name], watch.last[name],
                   watch.pauses[-1][0][name])
        yield (f"| {name} | " + " | ".join(map(cells, columns)) +
               f" | {len(compared)} | {grown['anon']:+g} + {grown['shmem']:+g}, {grown['files']:+g} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="a file for all figures, of each pause too")
    options = parser.parse_args()
    options.rounds = max(4, round(options.minutes))
    return options


def judge(watch, found):
    """What is wrong."""
    wrong = [f"{name}: {field} has grown by {value:g}" for name, _, grown in found for field, value in grown.items()
             if value > NOISE[field]]
    if watch.count_restarts() != watch.restarts:
        wrong.append("a worker has died")
    if any(len(compared) < 2 for _, compared, _ in found):
        wrong.append("a worker was replaced, so there is nothing to compare")
    return wrong


def main():
    options = parse()
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))  # what the balancer logs
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vb-soak-"))
        demos = [stack.enter_context(Demo(name)) for name in "abc"]
        tunnel_port = free_port()
        quick = {"keepalive": {"timeout": "2s"}, "circuit_breaker": {"max_pending": 0}}
        pools = {**web(demos, retry={"on": ["connect", "reset", "timeout", "503"]},
                       health={"path": "/health", "interval": "500ms"}, **quick),
                 "tunnels": {"backends": [f"127.0.0.1:{tunnel_port}"], "health": "off", **quick}}
        lb = stack.enter_context(Balancer(folder, pools, workers=options.workers, config={
            "routes": [{"path": "/tunnel", "pool": "tunnels"}, {"pool": "web"}]}))
        watch, trouble = Watch(lb), Trouble(lb, demos, pools)
        begin = time.monotonic()
        outcomes = asyncio.run(soak(lb, watch, trouble, tunnel_port, options))
        minutes = (time.monotonic() - begin) / 60
        found = list(verdicts(watch))
        wrong = judge(watch, found)
        status = lb.vbctl("status")
    print(f"{minutes:.1f} minutes, {status['requests']:,} requests, {trouble.reloads} reloads, {trouble.commands} "
          f"commands, {trouble.kills} backends and {trouble.killed_workers} workers killed")
    for kind, counts in outcomes.items():
        print(f"  {kind}: " + ", ".join(f"{what} {n}" for what, n in sorted(counts.items(), key=str)))
    print("\n".join(table(watch, found)))
    print("\n".join(wrong) or "nothing grows")
    if options.json:
        options.json.write_text(json.dumps({
            "start": watch.start, "most": watch.most, "last": watch.last, "outcomes": outcomes,
            "pauses": [now for now, _ in watch.pauses], "growth": {name: grown for name, _, grown in found},
            "wrong": wrong}, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
