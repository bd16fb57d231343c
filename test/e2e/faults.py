"""What fault tests are made of: recorders, which know all they were ever asked, and a load that names each request.

A recorder is a process, so that it can be killed and stopped. Its notes outlive it: an id that is there twice is a
request that was processed twice, wherever that was.
"""
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from harness import TIMEOUT, Client, Load, Malformed, Truncated, eventually, free_port

PROGRAM = Path(__file__).parent / "servers" / "recorder.py"
BODY_LINES = 20  # as in the recorder


class Recorder:
    """A servers/recorder.py process. Options are those of its `how`."""

    def __init__(self, folder, **how):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.notes = Path(folder) / f"recorder-{self.port}"
        self.notes.touch()
        self.how = how
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, PROGRAM, str(self.port), str(self.notes)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "ok\n"
        self._tell(self.how)
        return self

    start = __enter__

    def __exit__(self, *_):
        self.kill()

    def _tell(self, how):
        if how:
            self.process.stdin.write(json.dumps(how) + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "ok\n"

    def set(self, **how):
        """From now on, also when it is started again."""
        self.how = {**self.how, **how}
        self._tell(how)

    def kill(self):
        """kill -9."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT)
        self.process.stdin.close()
        self.process.stdout.close()

    def stop(self):
        """It hangs: the kernel still accepts and takes bytes for it."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def seen(self):
        """[id, method] of each request, as often as it was seen."""
        lines = self.notes.read_text().split("\n")
        return [tuple(line.split()) for line in lines[:-1]]


_loads = itertools.count()


class Sent:
    """One request of a load. outcome: the status, or the exception; `seconds` it took."""

    def __init__(self, ident, method):
        self.id, self.method = ident, method
        self.began, self.seconds, self.outcome = time.monotonic(), None, None

    def end(self, outcome):
        self.seconds, self.outcome = time.monotonic() - self.began, outcome

    def __repr__(self):
        return f"{self.method} {self.id}: {self.outcome!r} after {self.seconds:.3f} s"


class NamedLoad(Load):
    """Clients that send request after request, each with an id of its own, over kept connections until stopped.

    `methods` are taken in turns; those with a body get a small one. `pause` is a function that gives the seconds
    between two requests of a client. A 200 with another body than a recorder gives is an outcome of Malformed.
    """

    def __init__(self, port, clients=16, methods=("GET",), pause=lambda: 0.005, headers=()):
        super().__init__(port, clients)
        self.methods, self.pause, self.headers = methods, pause, headers
        self.sent = []
        self._name = f"{os.getpid()}.{next(_loads)}"

    def _run(self, number):
        client = None
        for n in itertools.count():
            method = self.methods[n % len(self.methods)]
            sent = Sent(f"{self._name}.{number}.{n}", method)
            try:
                if client and client.was_closed():
                    client.close()
                    client = None
                client = client or Client(self.port)
                body = b"x" * 100 if method in ("POST", "PUT") else None
                response = client.request(method, f"/r/{sent.id}", self.headers, body)
                if response.status == 200:
                    check_answer(sent, response)
                sent.end(response.status)
                keeps = not response.closes
            except (OSError, Truncated, Malformed) as error:
                sent.end(error)
                keeps = False
            self.sent.append(sent)
            if not keeps and client:
                client.close()
                client = None
            if self._stopped.wait(self.pause()):
                break
        if client:
            client.close()

    def failures(self, since=0):
        return [sent for sent in self.sent if sent.began >= since and sent.outcome != 200]

    def wait(self, n):
        """Until n more requests are done."""
        wanted = len(self.sent) + n
        eventually(lambda: len(self.sent) >= wanted, f"{n} more requests; the last were {self.sent[-3:]}")

    def last(self, seconds):
        """Goes on for so long: for what has no event to wait for."""
        self._stopped.wait(seconds)


def check_answer(sent, response):
    wanted = b"" if sent.method == "HEAD" else f"{sent.id}\n".encode() * BODY_LINES
    if response.field("X-Id") != sent.id or response.body != wanted:
        raise Malformed(f"{sent.id} got {response.field('X-Id')}, {response.body!r}")


def doubled(recorders, method=None):
    """The requests that recorders have processed more often than once, all together."""
    counts = Counter(entry for recorder in recorders for entry in recorder.seen())
    return [ident for (ident, of), n in counts.items() if n > 1 and method in (None, of)]


def retried(lb):
    return sum(row["retries"] for row in lb.vbctl("backends")["backends"])


def report(what, lb, load, recorders):
    """One line about a fault that is over: printed (pytest -s, -rA), and appended to the file VB_FAULT_REPORT.

    Also what holds for every fault: what a client was told to have been done has been done, at least once.
    """
    known = {ident for recorder in recorders for ident, _ in recorder.seen()}
    assert [sent for sent in load.sent if sent.outcome == 200 and sent.id not in known] == []
    twice = ", ".join(f"{len(doubled(recorders, method))} {method}" for method in load.methods)
    line = (f"{what}: sent {len(load.sent)}, failed {len(load.failures())}, retried {retried(lb)}, doubled {twice}, "
            f"slowest {max(sent.seconds for sent in load.sent):.2f} s")
    print(line)
    if os.environ.get("VB_FAULT_REPORT"):
        with open(os.environ["VB_FAULT_REPORT"], "a") as file:
            file.write(line + "\n")


class Town:
    """Recorders and the balancer in front of them; made by the fixture of this name."""

    def __init__(self, lb, recorders):
        self.lb, self.recorders = lb, recorders

    def load(self, **options):
        return NamedLoad(self.lb.port, **options)

    def wait_health(self, state="up"):
        for recorder in self.recorders:
            self.lb.wait_health(recorder, state)

    def wait_served_by(self, recorder):
        """Until it is given requests, and answers them."""
        def answered():
            row = self.lb.backend(recorder)
            return row["requests"] - row["errors"] - row["in_flight"]
        before = answered()
        eventually(lambda: answered() > before + 3, f"{recorder.address} is given requests again")

    def wait_quiet(self):
        self.lb.wait_idle()
        eventually(lambda: self.lb.vbctl("status")["connections"] == 0, "all clients are gone")

    def report(self, what, load):
        report(what, self.lb, load, self.recorders)

    def doubled(self, method=None):
        return doubled(self.recorders, method)

    def retried(self):
        return retried(self.lb)
