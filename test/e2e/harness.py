"""What end-to-end tests are made of: the balancer, backends, clients and load, all real processes and real sockets.

Everything here waits for events and never for time; TIMEOUT only bounds a wait that will not come true. Everything that
runs is a context manager, and its end is part of the test: a balancer must stop with status 0, leave no process and no
segment behind, and no sanitizer may have written a report. conftest.py ties these lifetimes to the tests.
"""
import fcntl
import itertools
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("VB_BUILD_DIR", ROOT / "build-asan"))
TIMEOUT = 20  # seconds; for a machine that is busy with sanitizers
CACHE = BUILD / "CMakeCache.txt"
SANITIZED = CACHE.exists() and "VB_ASAN:BOOL=ON" in CACHE.read_text()
# What is left of the look for leaks at a process's end when that is killed meanwhile.
INTERRUPTED = re.compile(r"==\d+==Unable to get registers from thread \d+\.\n?")
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer")


def eventually(condition, what, timeout=TIMEOUT):
    """The first true value of condition(); polled, because most things here have no event that another process sees."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.01)


def at_once(n, function):
    """Calls function(i) for i < n in n threads that start together; the results in order."""
    barrier = threading.Barrier(n)

    def call(i):
        barrier.wait(TIMEOUT)
        return function(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(call, range(n)))


# ---- ports -----------------------------------------------------------------------------------------------------------

_held_ports = []


def _port_candidates():
    """Below the ports that the kernel hands out by itself: there nobody else's connection can be in the way."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = 10000 if low > 12000 else 1024
    return [random.randrange(first, low) for _ in range(1000)]


def free_port(among=None):
    """A port for this test process only: a lock keeps other test processes that run beside it away from it."""
    folder = Path(tempfile.gettempdir()) / f"vibebalancer-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in among or _port_candidates():
        lock = open(folder / str(port), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                with socket.socket(family) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
        except OSError:
            lock.close()
            continue
        _held_ports.append(lock)
        return port
    raise AssertionError("no free port")


# ---- processes -------------------------------------------------------------------------------------------------------


def is_running(pid):
    """False for a zombie too: in a container nobody may be there to reap an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def go_on(*pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def is_stopped(pid):
    """By SIGSTOP."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def memory_kib(pid, field="VmRSS"):
    return int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def to_yaml(value, indent=0):
    """Enough YAML for a configuration: mappings as blocks, anything below a list as flow, scalars unquoted."""
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            nested = isinstance(item, dict) and item
            lines.append(" " * indent + f"{key}:" + ("\n" + to_yaml(item, indent + 2) if nested else " " + _flow(item)))
        return "\n".join(lines)
    return _flow(value)


def _flow(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "address"):
        return f'"{value.address}"'
    text = str(value)
    return json.dumps(text) if text == "" or re.search(r'[\[\]{},:#&*!|>\'"%@`\s]', text) else text


# For tests that measure memory: what the sanitizer keeps of blocks that were freed, of functions that have returned and
# of who has allocated what must not look like memory in use.
MEASURABLE = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=0:malloc_context_size=1"
              ":thread_local_quarantine_size_kb=0:detect_stack_use_after_return=0"}


class Failed(Exception):
    """A program ended otherwise than it should; carries what it said."""


def run(program, *args, env=None, wrapper=(), cwd=None):
    """Runs one of our programs to its end."""
    return subprocess.run([*wrapper, BUILD / program, *map(str, args)], text=True, errors="surrogateescape",
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT, cwd=cwd,
                          env={**os.environ, **(env or {})})


_numbers = itertools.count()


def unique_name():
    return f"test-{os.getpid()}-{next(_numbers)}"


def web(backends, **pool):
    """Settings of the pool `web`. Health checks are off unless `pool` has some."""
    return {"web": {"backends": backends if isinstance(backends, list) else [backends], "health": "off", **pool}}


class Balancer:
    """One instance on a free port, with a configuration made from `pools` and `config`.

    lb.port           where it listens
    lb.vbctl(...)     a document of `vbctl ... --json`
    lb.log()          what it wrote to standard error so far
    lb.reload(...)    another configuration
    """

    def __init__(self, folder, pools, *, workers=1, config=None, name=None, port=None, wrapper=(), args=(), env=None,
                 stderr=None, program="vibebalancer"):
        self.program = BUILD / program
        self.name = name or unique_name()
        self.port = port or free_port()
        self.folder = Path(folder) / f"balancer-{next(_numbers)}"
        self.folder.mkdir()
        self.file = self.folder / "vibebalancer.yaml"
        self.settings = {}
        self.write_config(**{"listen": f"127.0.0.1:{self.port}", "workers": workers, "pools": pools, **(config or {})})
        self.segment = Path(f"/dev/shm/vibebalancer-{self.name}")
        self.control = Path(f"{self.segment}.sock")
        self.unclean = False  # set by a test after which there is no clean end to be judged
        self._asked = False
        self._seen_workers = set()
        self._stderr = self.folder / "stderr"
        with open(self._stderr, "wb") as log, open(self.folder / "stdout", "wb") as stdout:
            self.process = subprocess.Popen(
                [*wrapper, self.program, "-c", self.file, "--name", self.name, *args],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr or log, env=self._environment(env or {}))
        self.pid = self.process.pid
        self._wrapped = bool(wrapper)

    def write_config(self, **settings):
        """The file, with these in the place of what it had under their keys (None: nothing), at once as editors do."""
        self.settings = {key: value for key, value in {**self.settings, **settings}.items() if value is not None}
        self.workers = self.settings["workers"]
        new = self.file.with_suffix(".new")
        new.write_text(to_yaml(self.settings) + "\n")
        new.replace(self.file)

    def _environment(self, extra):
        env = {**os.environ, **extra}
        for sanitizer in ("ASAN", "UBSAN", "TSAN"):
            options = env.get(f"{sanitizer}_OPTIONS", "")
            env[f"{sanitizer}_OPTIONS"] = f"{options}:log_path={self.folder}/report"
        return env

    def __enter__(self):
        try:
            eventually(self._is_ready, "the balancer is ready")
        except BaseException:
            self._kill()
            raise
        return self

    def _is_ready(self):
        if self.process.poll() is not None:
            raise Failed(f"it ended with status {self.process.returncode}:\n{self.log()}{self.reports()}")
        result = run("vbctl", "--name", self.name, "status", "--json")
        if result.returncode != 0:
            return False
        status = json.loads(result.stdout)
        # Before the file is replaced it is locked: what a killed master has left there looks alive for that moment.
        ours = self._wrapped or status["pid"] == self.pid
        ready = ours and status["state"] == "running" and status["workers"]["ready"] == self.workers
        if ready:
            self.worker_pids()
        return ready

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None and not self.unclean:
                self.stop()
        finally:
            self._kill()
            print(f"---- {self.name}: standard error\n{self.log()[-8000:]}{self.reports()}")

    def _is_ours(self, pid):
        """A number may belong to somebody else meanwhile."""
        try:
            return is_running(pid) and (self.name in Path(f"/proc/{pid}/cmdline").read_text() or
                                        os.readlink(f"/proc/{pid}/exe") == str(self.program))
        except OSError:
            return False

    def _kill(self):
        """After a failure, and after a test that killed it itself."""
        workers = [pid for pid in self._seen_workers if is_running(pid)]
        if self.process.poll() is None:
            workers += children_of(self.pid)
            os.kill(self.pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait(TIMEOUT)
        for pid in filter(self._is_ours, workers):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.segment.unlink(missing_ok=True)
        self.control.unlink(missing_ok=True)

    def ask_to_stop(self, how=signal.SIGTERM):
        self._asked = True
        os.kill(self.pid, how)

    def stop(self, timeout=TIMEOUT):
        """A clean stop, unless the test has asked for it already: status 0, and nothing left behind."""
        if not self._asked and self.process.poll() is None:
            self.ask_to_stop()
        self.wait(timeout)
        assert self.process.returncode == 0, f"status {self.process.returncode}\n{self.log()}"
        assert self.reports() == ""
        assert [pid for pid in self._seen_workers if self._is_ours(pid)] == [], "workers outlive their master"
        assert not self.segment.exists(), "the segment file is left behind"
        assert not self.control.exists(), "the control socket is left behind"

    def wait(self, timeout=TIMEOUT):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout} s\n{self.log()}") from None

    def reload(self, **settings):
        """vbctl reload, with these settings from now on; what it says."""
        self.write_config(**settings)
        result = run("vbctl", "--name", self.name, "reload")
        assert result.returncode == 0 and result.stderr == "", (result, self.log())
        self.worker_pids()
        return result.stdout

    def reload_in_vain(self, **settings):
        """A reload that must be refused; the reason."""
        self.write_config(**settings)
        result = run("vbctl", "--name", self.name, "reload")
        assert result.returncode == 1 and result.stdout == "", result
        return result.stderr

    def hup(self):
        os.kill(self.pid, signal.SIGHUP)

    @property
    def generation(self):
        return self.vbctl("status")["generation"]

    def wait_generation(self, n):
        eventually(lambda: self.generation == n, f"generation {n}:\n{self.log()}")
        return self.wait_workers()

    def wait_old_gone(self):
        """Until all workers are of the generation that serves now."""
        eventually(lambda: {row["generation"] for row in self.worker_rows()} == {self.generation},
                   "workers of older generations are gone")

    def reports(self):
        """What sanitizers had to say about any of its processes."""
        texts = [INTERRUPTED.sub("", path.read_text(errors="replace")) for path in sorted(self.folder.glob("report*"))]
        return "".join(texts) + "".join(line for line in self.log().splitlines(True) if SANITIZER.search(line))

    def log(self):
        return self._stderr.read_text(errors="replace")

    def wait_log(self, pattern, count=1):
        """The lines that match, once there are `count` of them."""
        def lines():
            found = [line for line in self.log().splitlines() if re.search(pattern, line)]
            return found if len(found) >= count else None
        return eventually(lines, f"{count} x /{pattern}/ in the log:\n{self.log()}")

    def vbctl(self, *args):
        result = run("vbctl", "--name", self.name, *args, "--json")
        assert result.returncode == 0 and result.stderr == "", (result.args, result.returncode, result.stderr)
        return json.loads(result.stdout)

    def backend(self, backend, pool=None):
        """The row of a backend (an object with an address, or a name) in `vbctl backends`."""
        wanted = getattr(backend, "address", backend)
        rows = [row for row in self.vbctl("backends")["backends"]
                if wanted in (row["address"], row["name"]) and pool in (None, row["pool"])]
        assert len(rows) == 1, (wanted, rows)
        return rows[0]

    def wait_health(self, backend, state):
        return eventually(lambda: self.backend(backend)["health"] == state and self.backend(backend),
                          f"{backend} is {state}")

    def wait_idle(self):
        """All counts of what is there now have come back to zero."""
        def idle():
            status, rows = self.vbctl("status"), self.vbctl("backends")["backends"]
            return status["in_flight"] == 0 and all(row["in_flight"] == 0 for row in rows)
        eventually(idle, "nothing is in flight")

    def worker_rows(self):
        return self.vbctl("workers")["workers"]

    def total(self, field):
        """Of a figure that each worker counts."""
        return sum(row[field] for row in self.worker_rows())

    def worker_pids(self):
        pids = [row["pid"] for row in self.worker_rows() if row["state"] == "ready"]
        self._seen_workers.update(pids)
        return pids

    def wait_workers(self, without=()):
        """The pids of all workers, once all are ready and none of them is in `without`."""
        def pids():
            found = self.worker_pids()
            return found if len(found) == self.workers and not set(found) & set(without) else None
        return eventually(pids, f"{self.workers} ready workers")


class Demo:
    """A vbdemo process."""

    def __init__(self, name, *args):
        self.name, self.args = name, args
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen([BUILD / "vbdemo", "--port", str(self.port), "--name", self.name, *self.args],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line == f"vbdemo {self.name} listens on {self.address}\n", line
        return self

    start = __enter__

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(TIMEOUT) == 0
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait(TIMEOUT)

    def control(self, query):
        assert post(self.port, f"/control?{query}").status == 200


# ---- clients ---------------------------------------------------------------------------------------------------------


class Truncated(Exception):
    """The peer closed cleanly before the message was complete."""


class Malformed(Exception):
    """What came is no HTTP/1.1."""


class Response:
    def __init__(self, head):
        self.head = head
        lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"(HTTP/1\.[01]) (\d{3}) (.*)", lines[0])
        if not match or any("\n" in line or "\r" in line for line in lines):
            raise Malformed(head)
        self.version, self.status, self.reason = match[1], int(match[2]), match[3]
        self.headers = []
        for line in lines[1:-2]:
            field = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", line)
            if not field:
                raise Malformed(line)
            self.headers.append((field[1], field[2]))
        self.body = b""
        self.chunks = None  # sizes, where it came in chunks
        self.trailers = b""

    def fields(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def field(self, name):
        """Its only value; None when it is not there."""
        values = self.fields(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    @property
    def text(self):
        return self.body.decode()

    @property
    def closes(self):
        return "close" in [token.strip().lower() for value in self.fields("Connection") for token in value.split(",")]


class Client:
    """One connection to a port, or to the path of a unix socket, as a strict HTTP/1.1 client."""

    def __init__(self, port, host="127.0.0.1", receive_buffer=None, source=None):
        is_unix = isinstance(port, Path)
        self.socket = socket.socket(socket.AF_UNIX if is_unix else
                                    socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT)
        try:
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(str(port) if is_unix else (host, port))
        except BaseException:
            self.socket.close()
            raise
        if not is_unix:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = "test" if is_unix else f"test:{port}"
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    close = __exit__

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def half_close(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:  # the kernel says "not connected" to one that was reset
            raise ConnectionResetError from error

    def trickle(self, data, pause):
        """Sends a byte every `pause` seconds, until all are gone, or something comes back, or the peer closes."""
        self.socket.settimeout(pause)
        for i in range(len(data)):
            try:
                self.send(data[i:i + 1])
                self._fill()
                break
            except TimeoutError:
                pass
            except ConnectionError:
                break
        self.socket.settimeout(TIMEOUT)

    def start(self, method, target, headers=(), body=None, host=True):
        """Sends a request; headers are (name, value) pairs."""
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"Host: {self.host}"] if host else []
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"Content-Length: {len(body)}"] if body is not None else []
        self.send("\r\n".join(lines + ["", ""]).encode("latin-1") + (body or b""))

    def request(self, method, target, headers=(), body=None):
        self.start(method, target, headers, body)
        return self.response(method)

    def get(self, target="/", headers=()):
        return self.request("GET", target, headers)

    def _fill(self):
        data = self.socket.recv(262144)
        self._buffer += data
        return len(data) > 0

    def _until(self, mark):
        while mark not in self._buffer:
            if not self._fill():
                if self._buffer == b"":
                    raise Truncated("the connection was closed without a response")
                raise Truncated(self._buffer)
        line, self._buffer = self._buffer.split(mark, 1)
        return line + mark

    def _exactly(self, n):
        parts, wanted = [], n
        while wanted > len(self._buffer):
            parts.append(self._buffer)
            wanted -= len(self._buffer)
            self._buffer = b""
            if not self._fill():
                raise Truncated(f"{n - wanted} of {n} bytes")
        parts.append(self._buffer[:wanted])
        self._buffer = self._buffer[wanted:]
        return b"".join(parts)

    def head(self):
        """The next head, be it of a final response or an interim one."""
        return Response(self._until(b"\r\n\r\n"))

    def response(self, method="GET"):
        """The next final response, whole."""
        while True:
            response = self.head()
            if response.status >= 200:
                break
        self.body(response, method)
        return response

    def body(self, response, method="GET"):
        encoding, length = response.field("Transfer-Encoding"), response.field("Content-Length")
        if encoding is not None and length is not None:
            raise Malformed("Transfer-Encoding and Content-Length")
        if method == "HEAD" or response.status in (204, 304):
            return
        if encoding is not None:
            if encoding.lower() != "chunked":
                raise Malformed(encoding)
            self._chunked_body(response)
        elif length is not None:
            if not re.fullmatch(r"\d+", length):
                raise Malformed(length)
            response.body = self._exactly(int(length))
        else:
            response.body = self.rest()

    def _chunked_body(self, response):
        response.chunks, parts = [], []
        while True:
            line = self._until(b"\r\n")
            if not re.fullmatch(rb"[0-9a-fA-F]+\r\n", line):  # extensions must not be forwarded
                raise Malformed(line)
            size = int(line, 16)
            if size == 0:
                break
            response.chunks.append(size)
            parts.append(self._exactly(size))
            if self._exactly(2) != b"\r\n":
                raise Malformed("no CRLF behind a chunk")
        response.body = b"".join(parts)
        while True:
            line = self._until(b"\r\n")
            if line == b"\r\n":
                return
            response.trailers += line

    exactly = _exactly

    def rest(self):
        """Everything until the peer closes."""
        parts, self._buffer = [self._buffer], b""
        while self._fill():
            parts.append(self._buffer)
            self._buffer = b""
        return b"".join(parts)

    def was_closed(self):
        """Cleanly by the peer, by now, with nothing under way: then no client would send a request on it."""
        self.socket.settimeout(0)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(TIMEOUT)

    def is_closed(self):
        """Waits until the peer has closed or reset the connection; false when it sends something instead."""
        try:
            return self._buffer == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True


def get(port, target="/", headers=(), host="127.0.0.1", source=None):
    """One GET over a connection of its own."""
    with Client(port, host, source=source) as client:
        return client.get(target, headers)


def post(port, target, body=b"", headers=()):
    with Client(port) as client:
        return client.request("POST", target, headers, body)


def exchange(port, data, half_close=False):
    """Sends bytes as they are over a connection of its own; the one response, after which the peer must close."""
    with Client(port) as client:
        try:
            client.send(data)
        except ConnectionError:
            pass  # it may answer and close before it has read all
        if half_close:
            client.half_close()
        response = client.response()
        try:
            assert client.rest() == b"", "more than one response"
        except ConnectionResetError:
            pass
        return response


def is_refused(port, host="127.0.0.1"):
    try:
        Client(port, host).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


class Load:
    """Clients that send GET after GET over kept connections until stopped; every outcome is kept. One that was closed
    meanwhile is replaced, as any client does it.

    outcomes: (time it began, number of the client, status or the exception)
    """

    def __init__(self, port, clients=8, target="/"):
        self.port, self.target = port, target
        self.outcomes = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a client of the load hangs"

    stop = __exit__

    def _run(self, number):
        client = None
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                if client and client.was_closed():
                    client.close()
                    client = None
                client = client or Client(self.port)
                response = client.get(self.target)
                outcome = response.status
                if response.closes:
                    client.close()
                    client = None
            except (OSError, Truncated, Malformed) as error:
                outcome = error
                if client:
                    client.close()
                client = None
            self.outcomes.append((began, number, outcome))
        if client:
            client.close()

    def failures(self, since=0):
        return [(number, outcome) for began, number, outcome in self.outcomes if began >= since and outcome != 200]

    def wait(self, n):
        """Until n more requests are done."""
        wanted = len(self.outcomes) + n
        eventually(lambda: len(self.outcomes) >= wanted, f"{n} more requests")


# ---- backends --------------------------------------------------------------------------------------------------------


def reply(body=b"ok", status="200 OK", headers=(), length=True):
    """The bytes of a response."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}"] + [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join(lines + ["", ""]).encode("latin-1") + body


class Request:
    """As a backend received it."""

    def __init__(self, head):
        self.head = head
        self.line, *rest = head.decode("latin-1").split("\r\n")[:-2]
        self.method, self.target, self.version = self.line.split(" ")
        self.headers = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in rest)]
        self.body = self.trailers = b""

    fields = Response.fields
    field = Response.field


class Connection:
    """A backend's side of a connection; `received` is every byte that came over it."""

    def __init__(self, backend, sock):
        self.backend, self.socket = backend, sock
        self.received = b""
        self.sent = self.taken = 0  # bytes, while a large body is on its way
        self._buffer = b""
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _fill(self):
        data = self.socket.recv(262144)
        if data == b"":
            raise EOFError
        if self.backend.record:
            self.received += data
        self._buffer += data

    def _take(self, n):
        while len(self._buffer) < n:
            self._fill()
        data, self._buffer = self._buffer[:n], self._buffer[n:]
        return data

    exactly = _take

    def rest(self):
        """Everything until the peer closes."""
        try:
            while True:
                self._fill()
        except EOFError:
            return self._take(len(self._buffer))

    def _line(self, mark=b"\r\n"):
        while mark not in self._buffer:
            self._fill()
        return self._take(self._buffer.index(mark) + len(mark))

    def read_head(self):
        return Request(self._line(b"\r\n\r\n"))

    def read_body(self, request):
        if request.field("Transfer-Encoding"):
            while True:
                size = int(self._line(), 16)
                if size == 0:
                    break
                request.body += self._take(size)
                self._line()
            while (line := self._line()) != b"\r\n":
                request.trailers += line
            return
        request.body = self._take(int(request.field("Content-Length") or 0))

    def digest_body(self, request):
        """Reads a body with a Content-Length without keeping it; its length and CRC-32."""
        left, crc = int(request.field("Content-Length")), 0
        length = left
        while left > 0:
            data, self._buffer = self._buffer or self.socket.recv(262144), b""
            if data == b"":
                raise EOFError
            crc = zlib.crc32(data, crc)
            left -= len(data)
            self.taken = length - left
        return length, crc

    def send(self, data):
        self.socket.sendall(data)
        self.sent += len(data)

    def send_slowly(self, data):
        """One byte in each segment."""
        for i in range(len(data)):
            self.send(data[i:i + 1])
            time.sleep(0)

    def hang(self):
        """Says nothing more until the backend is released or the peer gives up."""
        self.socket.settimeout(0.02)
        while not self.backend.released.is_set():
            try:
                if self.socket.recv(65536) == b"":
                    raise EOFError
            except socket.timeout:
                pass
        self.socket.settimeout(TIMEOUT)

    @property
    def is_open(self):
        return self.socket.fileno() >= 0

    def close(self):
        self.socket.close()
        raise EOFError

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class Backend:
    """A backend that answers as the test says, and remembers every byte.

    answer: bytes to send for each request; or a function(connection, request), called when a request is there whole
            (with `early`: when its head is there); or a list of these, one for each request, the last for all others.
    """

    def __init__(self, answer=None, early=False, record=True, port=None, host="127.0.0.1", path=None):
        self.answer = reply() if answer is None else answer
        self.early, self.record = early, record
        self.path = path  # of a unix socket
        self.port = None if path else port or free_port()
        self.host = host
        self.address = f"unix:{path}" if path else f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.connections, self.requests, self.failures = [], [], []
        self.released = threading.Event()  # ends every hang()
        self._lock = threading.Lock()
        self._listener = None

    def __enter__(self):
        if self.path:
            Path(self.path).unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self.path))
        else:
            self._listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((self.host, self.port))
        self._listener.listen(256)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    start = __enter__

    def __exit__(self, kind, *_):
        self.released.set()
        self.stop()
        if kind is None and self.failures:
            raise self.failures[0]

    def stop(self):
        """As if the process had died: nobody listens, and all connections are gone."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.drop_connections()

    def drop_connections(self):
        for connection in list(self.connections):
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(None)
            connection = Connection(self, sock)
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while True:
                request = connection.read_head()
                if not self.early:
                    connection.read_body(request)
                with self._lock:
                    number = len(self.requests)
                    self.requests.append(request)
                self._do(connection, request, number)
        except (EOFError, OSError, ValueError):
            pass
        except BaseException as error:  # the test's own, such as an assertion about what was received
            self.failures.append(error)
        finally:
            connection.socket.close()

    def _do(self, connection, request, number):
        answer = self.answer
        if isinstance(answer, list):
            answer = answer[min(number, len(answer) - 1)]
        if callable(answer):
            answer(connection, request)
        else:
            connection.send(answer)

    def wait_requests(self, n):
        """The requests, once there are n of them."""
        eventually(lambda: len(self.requests) >= n, f"{n} requests at {self.address}")
        return self.requests

    @property
    def received(self):
        return b"".join(connection.received for connection in self.connections)


def hang(connection, request):
    connection.hang()
    connection.close()


def held(connection, request):
    """Answers /slow once it is released, and all else at once."""
    if request.target == "/slow":
        connection.backend.released.wait(60)
    connection.send(reply(request.target))


def start_slow(lb, there, n):
    """n clients whose requests wait at the backend."""
    clients = [Client(lb.port) for _ in range(n)]
    before = len(there.requests)
    for client in clients:
        client.start("GET", "/slow")
    there.wait_requests(before + n)
    return clients


class Turns:
    """An answer for several backends: each request gets the next one, whichever of them it comes to; the last stays."""

    def __init__(self, *answers):
        self._left = list(answers)
        self._lock = threading.Lock()

    def __call__(self, connection, request):
        with self._lock:
            answer = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if callable(answer):
            answer(connection, request)
        else:
            connection.send(answer)


@contextmanager
def deaf_address():
    """Of a socket whose queue is full: handshakes are dropped, as by a host that is gone."""
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", free_port()))
        deaf.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        yield "%s:%d" % deaf.getsockname()


def close(connection, request):
    connection.close()


def reset(connection, request):
    connection.reset()


def echo(connection, request):
    connection.send(reply(request.body))
