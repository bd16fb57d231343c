"""Responses, hostile and unusual: what the client gets, and whether the backend's connection is used again.

Each case of the table is sent whole and byte by byte (each byte is a read of its own in the balancer, wire.Diag). After
it a second request must get its own answer, whatever the backend has sent behind the first. Rules: RFC 9110, RFC 9112.
"""
import threading
from dataclasses import dataclass, field

import pytest
from harness import TIMEOUT, Backend, Balancer, Client, Truncated, eventually, get, post, reply
from wire import Diag

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
NEXT = reply("next", headers=[("Connection", "close")])  # so no case finds a connection of another one


@dataclass(frozen=True)
class Passed:
    body: bytes = b"hello"
    status: int = 200
    reused: bool = True
    interims: tuple = ()
    has: dict = field(default_factory=dict)  # field: its value; None: it must not be there


@dataclass(frozen=True)
class Failed:
    """502, small and plain."""
    interims: tuple = ()


@dataclass(frozen=True)
class Cut:
    """It has begun, so all that is left is to let the client know that it is not whole."""


BAD, CUT = Failed(), Cut()


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    outcomes: tuple
    method: str = "GET"
    version: str = "1.1"
    closes: bool = False  # the backend closes behind it


CASES = []


def add(name, data, *outcomes, **more):
    CASES.append(Case(name, data, outcomes, **more))


def each(outcome, cases, **more):
    for name, data in cases.items():
        add(name, data, *(outcome if isinstance(outcome, tuple) else (outcome,)), **more)


def text_of(data):
    return ascii(data.decode("latin-1"))


def with_field(line, body=b"hello"):
    return OK + line + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


# ---- the status line (RFC 9112 4) ------------------------------------------------------------------------------------

each(BAD, {
    f"status line {text_of(line)}": line + b"\r\nContent-Length: 5\r\n\r\nhello"
    for line in (b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 000 OK", b"HTTP/1.1 -20 OK",
                 b"HTTP/1.1 +20 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 0x0 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK",
                 b"HTTP/1.1200 OK", b"HTTP/2.0 200 OK", b"HTTP/2 200", b"HTTP/0.9 200 OK", b"HTTP/1.x 200 OK",
                 b"HTTP/11 200 OK", b"HTTP/1.10 200 OK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"ICY 200 OK",
                 b"HTTP/1.1",
                 b"HTTP/1.1 ", b"HTTP/1.1 OK", b"200 OK", b"HTTPS/1.1 200 OK", b"HTTP/1.1 200OK", b"HTTP/1.1 200;OK",
                 b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 OK\r", b"HTTP/1.1 200 \x7f", b"\x00",
                 b"HTTP/1.1 \xb2\xb0\xb0 OK", b"SSH-2.0-x", b"<html>", b"\x15\x03\x03\x00\x02\x02\x50",
                 b"GET / HTTP/1.1")
})
each(Passed(), {
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello",
    "no reason and no space": b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
    "an 8-bit reason": b"HTTP/1.1 200 \xe4\xf6\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.9": b"HTTP/1.9 200 OK\r\nContent-Length: 5\r\n\r\nhello",
})
for status in (226, 299, 205, 300, 418, 451, 499, 500, 511, 599):
    add(f"status {status}", b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhello" % status, Passed(status=status))
for status in (600, 999):
    add(f"status {status}", b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhello" % status, Passed(status=status), BAD)
add("an empty line before it", b"\r\n" + reply("hello"), BAD)
each(BAD, {"nothing": b"", "half a status line": OK[:-2], "a status line alone": OK, "half a head": OK + b"X: a\r\n",
           "all but the last byte of a head": OK + b"X: a\r\n\r"}, closes=True)

# ---- framing (RFC 9112 6) --------------------------------------------------------------------------------------------

each(BAD, {
    f"length {text_of(value)}": OK + b"Content-Length: " + value + b"\r\n\r\nhello"
    for value in (b"", b"+5", b"-5", b"5z", b"z", b"0x5", b"5 5", b"5,", b",5", b"5.0", b"5, 6", b"5,5,6",
                  b"9223372036854775808",
                  b"18446744073709551616", b"18446744073709551621", b"9" * 400, b"5\x0b", b"\xa05", b'"5"', b"5;")
})
each(BAD, {
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two lengths, in other cases": OK + b"Content-Length: 5\r\ncontent-length: 0\r\n\r\nhello",
    "a space before the colon of Content-Length": OK + b"Content-Length : 5\r\n\r\nhello",
    "a folded length": OK + b"Content-Length:\r\n 5\r\n\r\nhello",
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked and length": CHUNKED + b"Content-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "length 0 and chunked": OK + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "length and identity": OK + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
})
each((Passed(has={"Content-Length": "5"}), BAD), {
    "twice the same length": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of the same length": OK + b"Content-Length: 5, 5\r\n\r\nhello",
})
each(Passed(has={"Content-Length": "5"}), {
    "length 005": OK + b"Content-Length: 005\r\n\r\nhello",
    "a length without space": OK + b"content-length:5\r\n\r\nhello",
    "a length amid spaces": OK + b"Content-Length:   5   \r\n\r\nhello",
    "a length amid tabs": OK + b"Content-Length:\t5\t\r\n\r\nhello",
})
each(BAD, {
    f"Transfer-Encoding {text_of(value)}": OK + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for value in (b"", b"gzip", b"identity", b"xchunked", b"chunked, gzip", b"gzip, chunked", b"chunked, chunked",
                  b",chunked",
                  b"chunked,", b'"chunked"', b"chunked;q=1", b"\x0bchunked", b"chunked\x00", b"\xa0chunked",
                  b"chunked identity")
}, closes=True)
each(BAD, {
    "chunked in two fields": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked, then identity": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a space before the colon of Transfer-Encoding": OK + b"Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a folded Transfer-Encoding": OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}, closes=True)
add("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", BAD,
    Passed(reused=False))
add("CHUNKED", OK + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passed())
add("chunked amid tabs", OK + b"Transfer-Encoding:\tchunked\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passed())
for name in (b"Content-Length", b"transfer-encoding"):
    add(f"Connection names {name.decode()}", OK + b"Connection: " + name + b"\r\n" +
        (b"Content-Length: 5\r\n\r\nhello" if name[0] == ord("C")
         else b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        BAD, Passed())

# ---- chunks (RFC 9112 7.1) -------------------------------------------------------------------------------------------

HELLO = b"5\r\nhello\r\n"
each(CUT, {
    f"chunks {text_of(chunks)}": CHUNKED + b"\r\n" + chunks
    for chunks in (b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
                   b" 5\r\nhello\r\n0\r\n\r\n", b"5_\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b"xyz\r\n",
                   b"10000000000000005\r\nhello\r\n0\r\n\r\n",
                   b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
                   b"5\r\nhello world\r\n0\r\n\r\n", b"6\r\nhello\r\n0\r\n\r\n", b"5;a\nhello\r\n0\r\n\r\n",
                   b"5;a\x00\r\nhello\r\n0\r\n\r\n", b'5;a="b\r\nhello\r\n0\r\n\r\n', HELLO + b"0\n\r\n", HELLO +
                   b"0\r\n\n", HELLO + b"0\r\n\rX\r\n", HELLO + b"-0\r\n\r\n", HELLO + b"0\r\nnonsense\r\n\r\n", HELLO +
                   b"0\r\n: x\r\n\r\n",
                   HELLO + b"0\r\nX : x\r\n\r\n", HELLO + b"0\r\nX: a\x00\r\n\r\n", HELLO + b"0\r\nX: a\n\r\n",
                   HELLO + b"0\r\nX: a\r\n b\r\n\r\n", HELLO + b"0\r\nHTTP/1.1 200 OK\r\n\r\n", HELLO + POISON)
})
add("an endless chunk extension", CHUNKED + b"\r\n" + HELLO + b"5;" + b"a" * 200000 + b"\r\nhello\r\n0\r\n\r\n", CUT)
add("endless trailers", CHUNKED + b"\r\n" + HELLO + b"0\r\n" + b"X: a\r\n" * 50000 + b"\r\n", CUT)
each(Passed(has={"Content-Length": None, "Transfer-Encoding": "chunked"}), {
    "one chunk": CHUNKED + b"\r\n" + HELLO + b"0\r\n\r\n",
    "leading zeros": CHUNKED + b"\r\n0005\r\nhello\r\n000\r\n\r\n",
    "one byte each": CHUNKED + b"\r\n" + b"".join(b"1\r\n%c\r\n" % c for c in b"hello") + b"0\r\n\r\n",
    "an extension": CHUNKED + b"\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
    "extensions of every form": CHUNKED + b'\r\n5;a;b=c;d="e;\\"f\\"";g\r\nhello\r\n0;h=i;j\r\n\r\n',
})
add("chunks that hold a response", CHUNKED + b"\r\n%x\r\n" % len(POISON) + POISON + b"\r\n0\r\n\r\n", Passed(POISON))
add("no chunks", CHUNKED + b"\r\n0\r\n\r\n", Passed(b""))

# ---- truncated (RFC 9112 8) ------------------------------------------------------------------------------------------

TRUNCATED = {
    "a length": OK + b"Content-Length: 10\r\n\r\nhello",
    "a length, before the first byte": OK + b"Content-Length: 10\r\n\r\n",
    "a length, one byte missing": OK + b"Content-Length: 6\r\n\r\nhello",
    "the largest length": OK + b"Content-Length: 9223372036854775807\r\n\r\nhello",
    "a chunk": CHUNKED + b"\r\n5\r\nhel",
    "a chunk size": CHUNKED + b"\r\n" + HELLO + b"1",
    "between chunks": CHUNKED + b"\r\n" + HELLO,
    "before the first chunk": CHUNKED + b"\r\n",
    "the last chunk": CHUNKED + b"\r\n" + HELLO + b"0\r\n",
    "the last line": CHUNKED + b"\r\n" + HELLO + b"0\r\n\r",
    "a trailer": CHUNKED + b"\r\n" + HELLO + b"0\r\nX: a\r\n",
}
for version in ("1.1", "1.0"):
    each(CUT, {f"cut: {name}, for HTTP/{version}": data for name, data in TRUNCATED.items()}, closes=True,
         version=version)

# ---- no body whatever the fields say (RFC 9112 6.3) ------------------------------------------------------------------

NO_BODY = {"204": (b"HTTP/1.1 204 No Content\r\n", 204, "GET"), "304": (b"HTTP/1.1 304 Not Modified\r\n", 304, "GET"),
           "HEAD": (OK, 200, "HEAD")}
for name, (line, status, method) in NO_BODY.items():
    def bare(what, data, reused, method=method, status=status, name=name, line=line):
        add(f"{name} {what}", line + data, Passed(b"", status, reused), method=method)
    bare("alone", b"X: a\r\n\r\n", True)
    bare("with a length", b"Content-Length: 5\r\n\r\n", True)
    bare("with chunked", b"Transfer-Encoding: chunked\r\n\r\n", True)
    bare("with a body", b"Content-Length: 5\r\n\r\nhello", False)
    bare("with chunks", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", False)
    bare("with a body without a length", b"\r\nhello", False)
    bare("with another response", b"\r\n" + POISON, False)
add("204 without a length of its own", b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n",
    Passed(b"", 204, has={"Content-Length": None, "Transfer-Encoding": None}))

# ---- interim responses (RFC 9110 15.2) -------------------------------------------------------------------------------

for status in (100, 102, 103, 150, 199):
    add(f"interim {status}", b"HTTP/1.1 %d X\r\nX-I: 1\r\n\r\n" % status + reply("hello"), Passed(interims=(status,)))
    add(f"interim {status} for HTTP/1.0", b"HTTP/1.1 %d X\r\nX-I: 1\r\n\r\n" % status + reply("hello"), Passed(),
        version="1.0")
add("interim responses of all kinds",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 X\r\n\r\n"
    b"HTTP/1.1 103 \r\n\r\n" + reply("hello"), Passed(interims=(100, 103, 102, 103)))
add("a hundred interim responses", b"HTTP/1.1 103 X\r\n\r\n" * 100 + reply("hello"), Passed(interims=(103,) * 100))
add("interim responses before 204", b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 204 X\r\n\r\n", Passed(b"", 204, interims=(103,)))
add("interim responses before chunks", b"HTTP/1.1 103 X\r\n\r\n" + CHUNKED + b"\r\n" + HELLO + b"0\r\n\r\n",
    Passed(interims=(103,)))
add("interim responses before HEAD's", b"HTTP/1.1 103 X\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\n",
    Passed(b"", interims=(103,)),
    method="HEAD")
add("interim responses, then nothing", b"HTTP/1.1 103 X\r\n\r\n", Failed((103,)), closes=True)
add("an interim response with a body", b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\nhello" + reply("hello"),
    Failed((103,)), BAD)
add("an interim response with a length of 0", b"HTTP/1.1 103 X\r\nContent-Length: 0\r\n\r\n" + reply("hello"),
    Passed(interims=(103,)), BAD)
add("an interim response with chunks", b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" +
    reply("hello"),
    Failed((103,)), BAD)
add("an interim response with a control byte", b"HTTP/1.1 103 X\r\nLink: \x01\r\n\r\n" + reply("hello"), BAD)
each(BAD, {
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "101 unasked, with bytes behind": b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + POISON,
    "101 unasked, without fields": b"HTTP/1.1 101 X\r\n\r\n" + reply("hello"),
})
add("101 unasked, behind 103", b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    Failed((103,)))

# ---- where the end of the connection is the end (RFC 9112 6.3, 8) ----------------------------------------------------

CLOSING = {
    "until the end": OK + b"\r\nhello",
    "until the end, although it says keep-alive": OK + b"Connection: keep-alive\r\n\r\nhello",
    "until the end, in HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "until the end, in HTTP/1.0 with keep-alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
}
each(Passed(reused=False, has={"Transfer-Encoding": "chunked", "Content-Length": None}), CLOSING, closes=True)
each(Passed(reused=False, has={"Transfer-Encoding": None, "Content-Length": None}),
     {f"{name}, for HTTP/1.0": data for name, data in CLOSING.items()}, closes=True, version="1.0")
add("nothing until the end", OK + b"\r\n", Passed(b"", reused=False), closes=True)
add("chunks for HTTP/1.0", CHUNKED + b"\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Passed(has={"Transfer-Encoding": None}),
    version="1.0")
add("a body that holds a response until the end", OK + b"\r\n" + POISON, Passed(POISON, reused=False), closes=True)

# ---- which connections are used again (RFC 9112 9.3) -----------------------------------------------------------------

add("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Passed(reused=False))
add("HTTP/1.0 with a length and keep-alive",
    b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", Passed())
add("Connection: close", with_field(b"Connection: close"), Passed(reused=False))
add("Connection: CLOSE in a list", with_field(b"Connection: x,CLOSE"), Passed(reused=False))
add("Connection: close in a second field", with_field(b"Connection: keep-alive\r\nConnection: close"),
    Passed(reused=False))
add("Connection: close with a tab", with_field(b"Connection: close\t"), Passed(reused=False))
add("Connection: close and a body until the end", OK + b"Connection: close\r\n\r\nhello", Passed(reused=False),
    closes=True)
add("Connection: keep-alive", with_field(b"Connection: keep-alive"), Passed())
add("Proxy-Connection: close", with_field(b"Proxy-Connection: close"), Passed(has={"Proxy-Connection": None}))

# ---- for one hop only (RFC 9110 7.6.1) -------------------------------------------------------------------------------

add("hop-by-hop fields",
    with_field(b"Connection: keep-alive, X-Secret, ,x-two\r\nX-Secret: 1\r\nX-TWO: 2\r\nKeep-Alive: timeout=5\r\n"
                                    b"Upgrade: h2c\r\nTE: trailers\r\nX-Stays: 3"),
    Passed(has={"X-Secret": None, "X-Two": None, "Keep-Alive": None, "Upgrade": None, "TE": None, "X-Stays": "3"}))
add("Connection names Set-Cookie", with_field(b"Connection: set-cookie\r\nSet-Cookie: a=b"),
    Passed(has={"Set-Cookie": None}))
add("Connection names Server", with_field(b"Server: x\r\nConnection: Server"), Passed(has={"Server": None}))
add("Connection names Via", with_field(b"Via: 1.1 before\r\nConnection: Via"), Passed())
add("a Trailer field", CHUNKED + b"Trailer: X-Checksum\r\n\r\n" + HELLO + b"0\r\n\r\n",
    Passed(has={"Trailer": "X-Checksum"}))

# ---- fields (RFC 9110 5, RFC 9112 5) ---------------------------------------------------------------------------------

each(BAD, {f"value with {byte:#04x}": with_field(b"X: a" + bytes([byte]) + b"b")
           for byte in (*range(9), *range(10, 0x20), 0x7f)})
each(BAD, {f"name with {chr(byte)!r}": with_field(b"X" + bytes([byte]) + b"Y: a")
           for byte in b" \t\"(),/;<=>?@[\\]{}\x00\x7f\xe4"})
each(BAD, {
    "a line without colon": with_field(b"nonsense"),
    "an empty name": with_field(b": x"),
    "a space before the colon": with_field(b"X : x"),
    "a space at the beginning": with_field(b" X: x"),
    "a folded line": with_field(b"X: a\r\n b"),
    "a line folded with a tab": with_field(b"X: a\r\n\tb"),
    "LF everywhere": reply("hello").replace(b"\r\n", b"\n"),
    "LF behind the status line": b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello",
    "LF behind a field": OK + b"Content-Length: 5\n\r\nhello",
    "LF for the empty line": OK + b"Content-Length: 5\r\n\nhello",
    "CR CR LF": with_field(b"X: a\r"),
    "CR for the empty line": OK + b"Content-Length: 5\r\n\rhello\r\n",
    "a response split by CR": with_field(b"Location: /\rSet-Cookie: a=b"),
    "a response split by LF": with_field(b"Location: /\nSet-Cookie: a=b"),
    "a response split by LF LF": OK + b"Location: /\n\n" + POISON + b"\r\n\r\n",
    "a response split by CR CR": OK + b"Location: /\r\r" + POISON + b"\r\n\r\n",
})
add("a response split by an application", OK + b"Location: /\r\nContent-Length: 0\r\n\r\n" + POISON +
    b"\r\nContent-Length: 5\r\n\r\nhello",
    Passed(b"", reused=False))
add("8-bit bytes in a value", with_field(b"X: \xe4\x80\xff"), Passed(has={"X": "\xe4\x80\xff"}))
add("a tab in a value", with_field(b"X: a\tb"), Passed(has={"X": "a\tb"}))
add("an empty value", with_field(b"X:"), Passed(has={"X": ""}))

# ---- limits ----------------------------------------------------------------------------------------------------------

each(BAD, {
    "a head of 64 KB": with_field(b"\r\n".join(b"X%d: %s" % (i, b"a" * 1000) for i in range(64))),
    "a field of 20 KB": with_field(b"X: " + b"a" * 20000),
    "a field without end": OK + b"X: " + b"a" * 1000000,
    "a head without end": OK + b"X: 0123456789\r\n" * 50000,
    "a status line without end": b"HTTP/1.1 200 " + b"a" * 1000000,
    "101 fields": OK + b"X: a\r\n" * 100 + b"Content-Length: 5\r\n\r\nhello",
})
add("a head of 16 KiB", with_field(b"X: " + b"a" * (16384 - len(with_field(b"X: ", b"hello")) + 5)),
    Passed(has={"X": "a" * (16384 - len(with_field(b"X: ")) + 5)}))
add("a hundred fields", OK + b"X: a\r\n" * 99 + b"Content-Length: 5\r\n\r\nhello", Passed())

# ---- bytes behind a response: never the answer to another request ----------------------------------------------------

each(Passed(reused=False), {
    "another response behind a length": reply("hello") + POISON,
    "another response behind chunks": CHUNKED + b"\r\n" + HELLO + b"0\r\n\r\n" + POISON,
    "one byte behind a length": reply("hello") + b"X",
    "an empty line behind a length": reply("hello") + b"\r\n",
    "an empty line behind chunks": CHUNKED + b"\r\n" + HELLO + b"0\r\n\r\n\r\n",
    "100 behind the response": reply("hello") + b"HTTP/1.1 100 Continue\r\n\r\n",
    "more than the length": OK + b"Content-Length: 5\r\n\r\nhello world",
})
add("more than no length", OK + b"Content-Length: 0\r\n\r\nhello", Passed(b"", reused=False))

assert len({case.name for case in CASES}) == len(CASES), "two cases with one name"


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    with Backend() as there:
        pools = {"web": {"backends": [there], "health": "off"}}
        with Balancer(tmp_path_factory.mktemp("door"), pools) as lb:
            lb.there = there
            yield lb


class Answer:
    """Answers the first request with the case, the second with NEXT; `used` are their connections."""

    def __init__(self, case, apart):
        self.case, self.apart = case, apart
        self.used = []
        self.sent = threading.Event()  # whole, or as far as the balancer took it

    def __call__(self, connection, request):
        self.used.append(connection)
        if len(self.used) > 1:
            connection.send(NEXT)
            connection.close()
        try:
            with Diag() as diag:
                diag.send_apart(connection.socket, self.case.data, 1 if self.apart else len(self.case.data))
        finally:
            self.sent.set()
        if self.case.closes:
            connection.close()


def is_cut(client, response):
    try:
        client.body(response)
    except (Truncated, ConnectionError):
        return True
    return False


def read(client, case):
    """What the client gets: an outcome with what was seen, and the response."""
    interims = ()
    while True:
        response = client.head()
        if response.status >= 200:
            break
        interims += (response.status,)
    if response.status == 502 and response.field("Content-Type"):
        client.body(response, case.method)
        return Failed(interims), response
    if CUT in case.outcomes:
        return (CUT if is_cut(client, response) else None), response
    client.body(response, case.method)
    return Passed(response.body, response.status, None, interims), response


def matches(seen, response, used, outcome):
    if type(seen) is not type(outcome) or getattr(seen, "interims", None) != getattr(outcome, "interims", None):
        return False
    if isinstance(outcome, Passed):
        return (seen.body == outcome.body and seen.status == outcome.status and
                (used[0] is used[1]) == outcome.reused and
                all(response.field(name) == value for name, value in outcome.has.items()))
    return used[0] is not used[1]


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_response(door, case, apart):
    if apart and len(case.data) > 2500:
        pytest.skip("long: sent whole only")
    door.there.answer = answer = Answer(case, apart)
    with Client(door.port) as client:
        client.send(f"{case.method} / HTTP/{case.version}\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".encode())
        seen, response = read(client, case)
        if isinstance(seen, Failed):
            assert case.method == "HEAD" or 10 < len(response.body) < 300
        assert answer.sent.wait(TIMEOUT)
        goes_on = not response.closes and seen != CUT and (case.version == "1.1" or response.field("Connection"))
        if goes_on:
            assert client.get().body == b"next"
        else:
            try:
                assert client.rest() == b""
            except ConnectionError:
                pass
            assert get(door.port).body == b"next"
    assert len(answer.used) == 2
    assert any(matches(seen, response, answer.used, outcome) for outcome in case.outcomes), (seen, response.head,
                                                                                             answer.used)
    eventually(lambda: not any(connection.is_open for connection in answer.used), "no connection of this case is left")


# ---- what a table cannot say -----------------------------------------------------------------------------------------


def test_bytes_that_come_later_end_an_idle_connection(balancer, backend):
    """A second response, unasked, when the first has been delivered: it answers nobody."""
    delivered = threading.Event()

    def answer(connection, request):
        connection.send(reply("hello"))
        if request.target == "/one":
            delivered.wait(20)
            connection.send(POISON)
    there = backend(answer)
    lb = balancer(there)
    with Client(lb.port) as client:
        assert client.get("/one").body == b"hello"
        delivered.set()
        eventually(lambda: not there.connections[0].is_open, "the balancer closes")
        assert client.get("/two").body == b"hello"
    assert len(there.connections) == 2


@pytest.mark.parametrize("flood", [b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 100 Continue\r\nX: " + b"a" * 1000 +
                                   b"\r\n\r\n"],
                         ids=["103", "100"])
def test_interim_responses_are_bounded(balancer, backend, flood):
    def answer(connection, request):
        try:
            for _ in range(100):
                connection.send(flood * 1000)
        finally:
            connection.close()
    there = backend([answer, reply("fine")])
    lb = balancer(there)
    with Client(lb.port) as client:
        client.start("GET", "/")
        heads = 0
        while (response := client.head()).status < 200:
            heads += 1
        assert response.status == 502 and heads <= 10000
    assert get(lb.port).body == b"fine"


@pytest.mark.parametrize("status", ["413 Content Too Large", "200 OK", "401 Unauthorized"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_early_response_reaches_the_client(balancer, backend, status, chunked):
    """RFC 9112 9.5: the rest of the body has no place to go, so neither connection is used for another request."""
    def answer(connection, request):
        connection.send(reply("enough", status))
        while connection.socket.recv(65536):
            pass
        connection.close()
    there = backend([answer, reply("next")], early=True)
    lb = balancer(there)
    part = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    with Client(lb.port) as client:
        client.start("POST", "/", [("Transfer-Encoding", "chunked") if chunked else ("Content-Length", 10000000)])
        client.send(b"%x\r\n" % len(part) + part + b"\r\n" if chunked else part)
        response = client.response()
        assert f"{response.status} {response.reason}" == status and response.body == b"enough"
        try:
            for _ in range(20):
                client.send(b"%x\r\n" % len(part) + part + b"\r\n" if chunked else part)
            assert client.rest() == b""
        except ConnectionError:
            pass
    eventually(lambda: not there.connections[0].is_open, "half a request's connection is closed")
    assert get(lb.port, "/next").body == b"next"
    assert [request.target for request in there.requests] == ["/", "/next"]


def test_an_early_response_to_a_body_that_comes_whole(balancer, backend):
    """It said all before it read: the client still gets that, and what follows stays in step."""
    def answer(connection, request):
        connection.send(reply("early"))
        connection.read_body(request)
    there = backend(answer, early=True)
    lb = balancer(there)
    for _ in range(20):
        with Client(lb.port) as client:
            response = client.request("POST", "/", body=b"x" * 1000)
            assert response.body == b"early"
            if not response.closes:
                assert client.get("/after").body == b"early"


def test_a_second_response_to_a_post_is_not_taken_for_the_answer_to_the_next(balancer, backend):
    there = backend([reply("one") + reply("two"), reply("three")])
    lb = balancer(there)
    assert [post(lb.port, "/", b"x").body for _ in range(2)] == [b"one", b"three"]


@pytest.mark.parametrize("names", ["X-Request-ID", "x-request-id, close"])
def test_a_request_id_that_the_backend_calls_hop_by_hop(balancer, backend, names):
    """The response still leaves with the id that its request had."""
    there = backend(reply("ok", headers=[("Connection", names), ("X-Request-ID", "of-this-hop")]))
    lb = balancer(there)
    response = get(lb.port, "/", [("X-Request-ID", "find-me-again")])
    assert response.field("X-Request-ID") == "find-me-again"
    response = get(lb.port)
    assert response.field("X-Request-ID") == there.requests[1].field("X-Request-ID")
