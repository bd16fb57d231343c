"""A backend that keeps a record of every request it has seen, and can fail in many ways: recorder.py PORT FILE

A request carries its id in the target (/r/ID) or in the field X-Id. `ID METHOD` is appended to FILE with one write,
before anything is answered: what a killed recorder has begun to work on is known. The answer to ID is `body_of(ID)`,
with the id in the field X-Id. Requests without an id (health checks) are answered 200, and not noted.

How it behaves comes as lines of JSON on standard input, at any time; each names what changes, and is answered by `ok`:
  do          normal; or for requests with an id: delay, status, garbage, hang, reset (before any byte of the answer),
              reset-middle (after its head and half of its body), close-middle (the same with a FIN)
  share       of the requests for which `do` is done; 1 is all
  delay       seconds, for do=delay; with hang_checks, health checks are not answered
  status      for do=status
  chunked     answers in chunks
  idle_close  [a, b]: each connection is closed after it was idle for a random time between a and b seconds
  keep_alive  seconds: announced in the field Keep-Alive. When a connection was idle for so long it is closed; a request
              that comes later is not read, although the FIN takes 0.3 s to travel
  close       each connection is closed after its first answer, which says so
  drop_kept   share of the requests on kept connections that are not read: the connection is closed instead, as it
              happens when the end of an idle connection crosses a request
  flap        seconds: so long it listens, then so long it does not and all its connections are reset, and so on; 0: off
"""
import asyncio
import json
import os
import random
import re
import socket
import struct
import sys
import time

PORT, FILE = int(sys.argv[1]), sys.argv[2]
BODY_LINES = 20

how = {"do": "normal", "share": 1, "delay": 0, "status": 503, "chunked": False, "idle_close": None, "keep_alive": 0,
       "close": False, "drop_kept": 0, "flap": 0, "hang_checks": False}
connections = set()
notes = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def body_of(ident):
    return f"{ident}\n".encode() * BODY_LINES


def answer_to(ident):
    """Head and body."""
    body, status = body_of(ident), how["status"] if how["do"] == "status" and ident else 200
    head = f"HTTP/1.1 {status} Status\r\nX-Id: {ident}\r\nX-Port: {PORT}\r\n"
    if how["keep_alive"]:
        head += f"Keep-Alive: timeout={how['keep_alive']}\r\n"
    if how["close"]:
        head += "Connection: close\r\n"
    if how["chunked"]:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), body
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body


class Connection(asyncio.Protocol):
    def __init__(self):
        self.input, self.answered, self.idle, self.waiting = b"", 0, None, None

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.add(self)
        self.become_idle()

    def connection_lost(self, _):
        connections.discard(self)
        self.is_busy()
        if self.waiting:
            self.waiting.cancel()

    def become_idle(self):
        self.idle_since, after = time.monotonic(), 0
        if how["idle_close"]:
            after = random.uniform(*how["idle_close"])
        elif how["keep_alive"] and self.answered:
            after = how["keep_alive"] + 0.3
        if after:
            self.idle = asyncio.get_running_loop().call_later(after, self.transport.close)

    def is_gone(self):
        """Its end is on its way to the peer already, when a request comes."""
        if not self.answered or self.input or self.waiting:
            return False
        too_late = how["keep_alive"] and time.monotonic() - self.idle_since > how["keep_alive"]
        return too_late or random.random() < how["drop_kept"]

    def is_busy(self):
        if self.idle:
            self.idle.cancel()
        self.idle = None

    def reset(self):
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def data_received(self, data):
        if self.is_gone():
            self.reset()
            return
        self.is_busy()
        self.input += data
        self.go_on()

    def go_on(self):
        while not self.waiting and not self.transport.is_closing():
            request = self.next_request()
            if request is None:
                return
            self.serve(*request)

    def next_request(self):
        """(method, id, is it a check) of the next request, once it has come whole; it is noted when its head is there.
        """
        head, mark, rest = self.input.partition(b"\r\n\r\n")
        if not mark:
            return None
        method, target, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
        named = re.match(r"/r/([^/?]+)", target) or re.search(r"^x-id: *(\S+)", head.decode("latin-1"), re.M | re.I)
        ident = named[1] if named else ""
        if ident and not getattr(self, "noted", False):
            os.write(notes, f"{ident} {method}\n".encode())
            self.noted = True
        length = self.body_length(head, rest)
        if length is None:
            return None
        self.input, self.noted = rest[length:], False
        return method, ident

    @staticmethod
    def body_length(head, rest):
        """In bytes on the wire; None when it is not there whole yet."""
        length = re.search(rb"^content-length: *(\d+)", head, re.M | re.I)
        if re.search(rb"^transfer-encoding:", head, re.M | re.I):
            end = re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n", rest)
            return end.end() if end else None
        n = int(length[1]) if length else 0
        return n if len(rest) >= n else None

    def serve(self, method, ident):
        head, body = answer_to(ident)
        if method == "HEAD":
            body = b""
        do = how["do"] if ident and random.random() < how["share"] else "normal"
        if do == "reset":
            self.reset()
        elif do == "garbage":
            self.transport.write(b"\x00\x01 garbage\r\n\r\n")
            self.answered += 1
        elif do in ("reset-middle", "close-middle"):
            self.transport.write(head + body[:len(body) // 2])
            self.later(0.02, self.reset if do == "reset-middle" else self.transport.close)
        elif do == "delay":
            self.later(how["delay"], lambda: self.answer(head + body))
        elif do == "hang" or (not ident and how["hang_checks"]):
            self.later(3600, self.reset)
        else:
            self.answer(head + body)

    def later(self, seconds, action):
        def act():
            self.waiting = None
            action()
        self.waiting = asyncio.get_running_loop().call_later(seconds, act)

    def answer(self, data):
        self.transport.write(data)
        if how["close"]:
            self.transport.close()
        self.answered += 1
        self.become_idle()
        if self.input:
            self.go_on()


async def listen():
    return await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", PORT, backlog=1024,
                                                          reuse_address=True)


async def flap(server):
    """Listens, and does not, in turns, for as long as it is told to."""
    while True:
        await asyncio.sleep(how["flap"] or 0.05)
        if how["flap"]:
            server.close()
            for connection in list(connections):
                connection.reset()
            await asyncio.sleep(how["flap"])
            server = await listen()


async def main():
    loop = asyncio.get_running_loop()
    flapping = asyncio.create_task(flap(await listen()))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ok", flush=True)
    while line := await lines.readline():
        how.update(json.loads(line))
        print("ok", flush=True)
    flapping.cancel()


asyncio.run(main())
