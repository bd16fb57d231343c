"""What the tests of the HTTP rules have in common: messages as a strict reader sees them, and bytes that arrive apart.

messages()   what a backend received must be this and nothing else: the form in which a proxy re-makes a request
Ledger       which requests reached a backend, whole or in part, by the names that stand in them (hostile.py)
Recorded     all that a client received, to be read as responses
Diag         has the process at the other end of a connection read all that was sent? So two writes become two reads
             there without any waiting by time.
"""
import errno
import fcntl
import os
import re
import socket
import struct
import termios
from dataclasses import dataclass, field

from harness import Client, Malformed, eventually

# ---- requests, as they must arrive -----------------------------------------------------------------------------------

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!\"$-~\x80-\xff]+) HTTP/1\.1")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)[ \t]*")
_LENGTH = re.compile(rb"0|[1-9][0-9]*")
_CHUNK_LINE = re.compile(rb"0|[1-9a-f][0-9a-f]*")


@dataclass
class Message:
    """A request. Fields and trailers are (name, value) pairs in their order, framing fields included."""
    method: str
    target: str
    fields: list
    framing: str = "none"  # none, length or chunked
    body: bytes = b""
    trailers: list = field(default_factory=list)
    raw: bytes = b""

    def values(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]


def _line(data, at):
    end = data.find(b"\r\n", at)
    if end < 0:
        if b"\n" in data[at:]:
            raise Malformed(f"LF alone in {data[at:]!r}")
        return None, at
    return data[at:end], end + 2


def _fields(data, at):
    """Up to the empty line; (None, at) when that is not there."""
    found = []
    while True:
        line, at = _line(data, at)
        if line is None:
            return None, at
        if line == b"":
            return found, at
        match = _FIELD.fullmatch(line)
        if not match:
            raise Malformed(f"no field: {line!r}")
        found.append((match[1].decode(), match[2].decode("latin-1")))


def _chunked(data, at):
    """(body, trailers, at); the body is None when it is not complete."""
    body = b""
    while True:
        line, at = _line(data, at)
        if line is None:
            return None, [], at
        if not _CHUNK_LINE.fullmatch(line):
            raise Malformed(f"no plain chunk line: {line!r}")
        size = int(line, 16)
        if size == 0:
            trailers, at = _fields(data, at)
            return (None, [], at) if trailers is None else (body, trailers, at)
        if len(data) < at + size + 2:
            return None, [], at
        if data[at + size:at + size + 2] != b"\r\n":
            raise Malformed(f"no CRLF behind a chunk: {data[at:]!r}")
        body += data[at:at + size]
        at += size + 2


def _message(data, at):
    """(message, where it ends); the message is None when it is not complete."""
    start = at
    line, at = _line(data, at)
    if line is None:
        return None, start
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise Malformed(f"no request line: {line!r}")
    fields, at = _fields(data, at)
    if fields is None:
        return None, start
    message = Message(match[1].decode(), match[2].decode("latin-1"), fields)
    lengths, codings = message.values("Content-Length"), message.values("Transfer-Encoding")
    if len(lengths) + len(codings) > 1 or len(message.values("Host")) != 1:
        raise Malformed(f"framing or Host twice: {data[start:at]!r}")
    if lengths:
        if not _LENGTH.fullmatch(lengths[0].encode("latin-1")):
            raise Malformed(f"length {lengths[0]!r}")
        message.framing = "length"
        end = at + int(lengths[0])
        if len(data) < end:
            return None, start
        message.body, at = data[at:end], end
    elif codings:
        if codings[0] != "chunked":
            raise Malformed(f"coding {codings[0]!r}")
        message.framing = "chunked"
        message.body, message.trailers, at = _chunked(data, at)
        if message.body is None:
            return None, start
    message.raw = data[start:at]
    return message, at


def messages(data):
    """(the complete messages, the bytes of a last one that is not complete). Malformed where a line is not plain."""
    found, at = [], 0
    while at < len(data):
        message, end = _message(data, at)
        if message is None:
            break
        found.append(message)
        at = end
    return found, data[at:]


_MARK = re.compile(rb"m\d{7}")


STRANGER = b"no mark"


class Ledger:
    """What reached a backend so far. A message is known by its mark, a name such as m0000012 in its head."""

    def __init__(self, backend):
        self.backend = backend
        self.messages = {}  # mark: the messages, whole, in the order of their connections
        self._begun = 0     # connections that have been looked at
        self._open = {}     # connection: bytes of it that were whole messages
        self._judged = set()
        self._malformed = []

    def read(self):
        """Goes on with what has arrived; (connection, bytes) of the messages that are not whole."""
        parts, new = [], self.backend.connections[self._begun:]
        self._begun += len(new)
        self._open.update({connection: 0 for connection in new})
        for connection, done in list(self._open.items()):
            is_over = not connection.is_open  # asked first: nothing comes after it
            try:
                found, rest = messages(connection.received[done:]) if len(connection.received) > done else ([], b"")
            except Malformed as error:  # said once; what else comes over it cannot be told apart
                self._malformed.append(f"{error}, in {connection.received[done:][:300]!r}")
                del self._open[connection]
                try:
                    connection.socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                continue
            self._open[connection] = done + sum(len(message.raw) for message in found)
            for message in found:
                mark = _MARK.search(message.raw)
                self.messages.setdefault(mark[0] if mark else STRANGER, []).append(message)
            if rest:
                parts.append((connection, rest))
            if is_over:
                del self._open[connection]
        return parts

    def objections(self, may_be_cut):
        """A part of a message must be of one of these marks, and its connection must end; and every line must be plain.
        What is wrong; each is said once."""
        parts = self.read()
        found, self._malformed = self._malformed, []
        for connection, rest in parts:
            if connection in self._judged:
                continue
            self._judged.add(connection)
            mark = _MARK.search(rest)
            if not mark or mark[0] not in may_be_cut:
                found.append(f"a part of something reached the backend: {rest[:300]!r}")
            else:
                eventually(lambda: not connection.is_open, "half a request's connection is closed")  # noqa: B023
        return found


class Recorded(Client):
    """A client's reading of bytes that are all there."""

    def __init__(self, data):  # no socket
        self._buffer = data

    def _fill(self):
        return False

    @property
    def left(self):
        return self._buffer


# ---- bytes that arrive apart -----------------------------------------------------------------------------------------

_SOCK_DIAG = 4                       # NETLINK_SOCK_DIAG, linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20            # linux/sock_diag.h
_REQUEST, _ERROR = 1, 2              # NLM_F_REQUEST, NLMSG_ERROR
_STATE, _READ_QUEUE = 16 + 1, 16 + 56  # in struct inet_diag_msg behind struct nlmsghdr
_FINISHED = {4, 5, 6, 7, 9, 11}      # FIN_WAIT1 .. CLOSE, LAST_ACK, CLOSING: its process has closed it


class Diag:
    """The kernel's own view of a TCP connection (sock_diag(7)), as `ss` sees it."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def unread_by_peer(self, sock):
        """Bytes that the process at the other end (of this machine, IPv4) has not read; None when it has closed."""
        try:
            (mine, my_port), (theirs, their_port) = sock.getsockname(), sock.getpeername()
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.EINVAL):  # reset
                return None
            raise
        identity = struct.pack("!HH4s12x4s12x", their_port, my_port, socket.inet_aton(theirs), socket.inet_aton(mine))
        request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xfff) + identity + struct.pack(
            "=III", 0, 0xffffffff, 0xffffffff)
        self.socket.send(struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + request)
        answer = self.socket.recv(8192)
        if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
            code = -struct.unpack_from("=i", answer, 16)[0]
            if code == errno.ENOENT:
                return None
            raise OSError(code, os.strerror(code))
        if answer[_STATE] in _FINISHED:
            return None
        return struct.unpack_from("=I", answer, _READ_QUEUE)[0]

    def consumed(self, sock):
        """Has the process at the other end read all that was sent, or closed?"""
        unacknowledged = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
        unread = self.unread_by_peer(sock)
        return unread is None or (unacknowledged == 0 and unread == 0)

    def send_apart(self, sock, data, size=1):
        """Sends pieces of that size, each when the one before it has been read at the other end; the last one too."""
        for i in range(0, len(data), size):
            sock.sendall(data[i:i + size])
            spins = 0
            while not self.consumed(sock):
                spins += 1
                if spins > 1000:
                    eventually(lambda: self.consumed(sock), "the other end reads")
