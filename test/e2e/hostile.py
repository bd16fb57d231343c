"""The table of hostile and unusual requests: raw bytes, and what may become of them (RFC 9110, RFC 9112).

`rule` is a section of one of these, as in `9112 6.1`, with what it says where that is not plain. Each case has one of
these outcomes, or where a rule leaves a choice several:
  refused    the client gets one of these statuses, and the connection ends. Not one byte reaches a backend; with
             `begins` its head may have been on its way, and a part of a message on a connection that is closed
  passed     the backend gets exactly this message, in the plain form that a strict reader cannot misread
  answered   the balancer itself answers with this status, and not one byte reaches a backend

MARK stands in the bytes for the name of one use of a case; named() gives it one.
"""
import re
from dataclasses import dataclass, replace

from wire import Message

MARK = b"m0000000"
TARGET = "/m0000000"
GET = b"GET /m0000000 HTTP/1.1\r\n"
POST = b"POST /m0000000 HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# Made by the proxy, or for one hop only: compared by rules of their own.
OWN = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "x-request-id", "content-length",
       "transfer-encoding", "connection", "te"}


@dataclass(frozen=True)
class Passed:
    """The message that a backend must get; `fields` without those in OWN, in their order."""
    method: str = "GET"
    target: str = TARGET
    fields: tuple = (("Host", "x"),)
    framing: str = "none"
    body: bytes = b""
    trailers: tuple = ()
    via: tuple = ()          # of hops before
    received: str = "1.1"    # version, for Via
    request_id: str = ""     # the client's own, if that is to be kept
    te: bool = False         # TE: trailers passes, as an offer of this hop

    def objections(self, message: Message):
        """What is not as it should be; an empty list when all is."""
        fields = [(name, value) for name, value in message.fields if name.lower() not in OWN]
        expected = [("method", self.method, message.method), ("target", self.target, message.target),
                    ("framing", self.framing, message.framing), ("body", self.body, message.body),
                    ("trailers", list(self.trailers), message.trailers),
                    ("X-Forwarded-For", ["127.0.0.1"], message.values("X-Forwarded-For")),
                    ("X-Forwarded-Proto", ["http"], message.values("X-Forwarded-Proto")),
                    ("TE", ["trailers"] if self.te else [], message.values("TE")),
                    ("Connection", ["te"] if self.te else [],
                     [value.lower() for value in message.values("Connection")])]
        host = message.values("Host")[0]
        if ("Host", None) in self.fields:  # any: the client named none
            fields = [("Host", None) if name == "Host" and host else (name, value) for name, value in fields]
        elif host:
            expected.append(("X-Forwarded-Host", [host], message.values("X-Forwarded-Host")))
        wanted = [("Host", value) for name, value in self.fields if name.lower() == "host"]  # it is made anew
        wanted += [(name, value) for name, value in self.fields if name.lower() != "host"]
        expected.append(("fields", wanted, fields))
        found = [f"{what}: {want!r} wanted, {got!r} got" for what, want, got in expected if want != got]
        via, ids = message.values("Via"), message.values("X-Request-ID")
        if tuple(via[:-1]) != self.via or not re.fullmatch(rf"{re.escape(self.received)} [\w.:-]+", via[-1]):
            found.append(f"Via: {via!r}")
        if len(ids) != 1 or not re.fullmatch(re.escape(self.request_id) or r"[\w-]{8,128}", ids[0]):
            found.append(f"X-Request-ID: {ids!r}")
        return found


@dataclass(frozen=True)
class Case:
    name: str
    rule: str
    data: bytes
    refused: frozenset = frozenset()
    begins: bool = False
    passed: Passed = None
    answered: int = 0
    ends: bool = False       # the connection ends although it is passed
    fin: bool = False        # the client says no more behind it: whatever followed would be a part of it

    def named(self, number):
        """This case for one use, which is called b"m%07d"."""
        mark = b"m%07d" % number
        old, new, passed = MARK.decode(), mark.decode(), self.passed
        if passed is not None:
            passed = replace(passed, target=passed.target.replace(old, new), body=passed.body.replace(MARK, mark),
                             fields=tuple((name, value and value.replace(old, new)) for name, value in passed.fields))
        return replace(self, data=self.data.replace(MARK, mark), passed=passed)


CASES = []


def text_of(data):
    return ascii(data.decode("latin-1"))


def add(name, rule, data, **outcome):
    outcome["refused"] = frozenset(outcome.get("refused", ()))
    CASES.append(Case(name, rule, data, **outcome))


def refused(rule, cases, statuses=(400,), **more):
    for name, data in cases.items():
        add(name, rule, data, refused=statuses, **more)


def passed(name, rule, data, also_refused=(), ends=False, **message):
    begins = also_refused != () and message.get("framing") == "chunked"
    add(name, rule, data, refused=also_refused, begins=begins, ends=ends, passed=Passed(**message))


def field(line):
    return GET + HOST + line + b"\r\n\r\n"


def framed(lines, body=b"hello"):
    return POST + HOST + lines + b"\r\n\r\n" + body


def with_length(name, rule, lines, also_refused=(), fields=(), body=b"hello"):
    passed(name, rule, framed(lines, body), also_refused, method="POST", framing="length", body=body,
           fields=(("Host", "x"), *fields))


def with_chunks(name, rule, chunks, also_refused=(), body=b"hello", lines=CHUNKED[:-2], fields=(), **more):
    passed(name, rule, framed(lines, chunks), also_refused, method="POST", framing="chunked", body=body,
           fields=(("Host", "x"), *fields), **more)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n"

# ---- length and chunked ----------------------------------------------------------------------------------------------

refused("9112 6.1: both", {
    "length, then chunked": framed(b"Content-Length: 6\r\nTransfer-Encoding: chunked", b"0\r\n\r\nX"),
    "chunked, then length": framed(b"Transfer-Encoding: chunked\r\nContent-Length: 6", b"0\r\n\r\nX"),
    "length 0 and chunked": framed(b"Content-Length: 0\r\nTransfer-Encoding: chunked", LAST),
    "a right length and chunked": framed(b"Content-Length: 5\r\nTransfer-Encoding: chunked", LAST),
    "length and chunked in HTTP/1.0": b"POST /m0000000 HTTP/1.0\r\n" + HOST +
                                      b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "length and chunked for GET": GET + HOST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + LAST,
})
refused("9112 6.1: both", {
    "length and identity": framed(b"Content-Length: 5\r\nTransfer-Encoding: identity"),
    "length and an empty Transfer-Encoding": framed(b"Content-Length: 5\r\nTransfer-Encoding:"),
    "length and xchunked": framed(b"Content-Length: 5\r\nTransfer-Encoding: xchunked"),
}, {400, 501})

refused("9112 6.3: lengths that differ", {
    "two lengths": framed(b"Content-Length: 5\r\nContent-Length: 10"),
    "two lengths, 0 first": framed(b"Content-Length: 0\r\nContent-Length: 5"),
    "two lengths in other cases": framed(b"Content-Length: 5\r\nCONTENT-LENGTH: 6"),
    "a list of lengths": framed(b"Content-Length: 5, 10"),
    "a list of lengths without space": framed(b"Content-Length: 5,6"),
    "three lengths": framed(b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6"),
})
with_length("twice the same length", "9110 8.6: may be merged", b"Content-Length: 5\r\nContent-Length: 5", {400})
with_length("a list of the same length", "9110 8.6: may be merged", b"Content-Length: 5, 5", {400})

refused("9110 8.6: length = 1*DIGIT", {
    f"length {text_of(value)}": framed(b"Content-Length: " + value)
    for value in (b"", b"+5", b"-5", b"-0", b"0x5", b"5z", b"z5", b"1_0", b"1 0", b"5.0", b"5e0", b"5;", b'"5"', b"5,",
                  b",5",
                  b"\x0c5", b"5\x0b", b"5\xa0", b"\xd9\xa5", b"5\x00", b"5%30", b"0b101", b"5 chunked", b"None", b"$5")
})
refused("9110 8.6: must not overflow", {
    "a length of 2^63": framed(b"Content-Length: 9223372036854775808"),
    "a length of 2^64": framed(b"Content-Length: 18446744073709551616"),
    "a length of 2^64 + 5": framed(b"Content-Length: 18446744073709551621"),
    "a length of 400 digits": framed(b"Content-Length: " + b"9" * 400),
    "a length of 2^128": framed(b"Content-Length: 340282366920938463463374607431768211461"),
}, {400, 413})
refused("9112 5.1, 5.2", {
    "a space before the colon of Content-Length": framed(b"Content-Length : 5"),
    "a tab before the colon of Content-Length": framed(b"Content-Length\t: 5"),
    "a folded length": framed(b"Content-Length:\r\n 5"),
    "a length with a folded rest": framed(b"Content-Length: 5\r\n 0"),
    "Content-Length behind LF in a value": framed(b"X: y\nContent-Length: 5"),
    "Content-Length behind CR in a value": framed(b"X: y\rContent-Length: 5"),
})
for value in (b"005", b"00000000000000000000000000000005"):
    with_length(f"length {value.decode()}", "9110 8.6: forwarded plainly", b"Content-Length: " + value)
with_length("length 00", "9110 8.6: forwarded plainly", b"Content-Length: 00", body=b"")
with_length("a length without space", "9112 5: OWS", b"Content-Length:5")
with_length("a length amid spaces", "9112 5: OWS", b"Content-Length:   5   ")
with_length("a length amid tabs", "9112 5: OWS; llhttp 9.4.1", b"Content-Length:\t5\t")
with_length("a length in capitals", "9110 5.1", b"CONTENT-LENGTH: 5")
with_length("an empty body", "9110 8.6", b"Content-Length: 0", body=b"")
with_length("a name that only looks like Content-Length", "9110 5.1", b"Content-Length: 5\r\nContent_Length: 9",
            fields=(("Content_Length", "9"),))
with_length("a name that only looks like Transfer-Encoding", "9110 5.1",
            b"Content-Length: 5\r\nTransfer_Encoding: chunked", fields=(("Transfer_Encoding", "chunked"),))
with_length("a name that begins with Transfer-Encoding", "9110 5.1",
            b"Content-Length: 5\r\nTransfer-Encodings: chunked", fields=(("Transfer-Encodings", "chunked"),))
with_length("a body that is a request", "9112 6", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED)
with_length("a body of control bytes", "9112 6", b"Content-Length: 256", body=bytes(range(256)))
refused("9112 8: cut", {
    "a cut body with a length": framed(b"Content-Length: 10", b"hello"),
    "a body with a length that does not begin": framed(b"Content-Length: 10", b""),
    "the largest length": framed(b"Content-Length: 9223372036854775807", b"hello"),
    "a length that takes in the next request": framed(b"Content-Length: 60", GET + HOST + b"\r\n"),
}, {400, 413}, begins=True, fin=True)

# ---- Transfer-Encoding -----------------------------------------------------------------------------------------------

refused("9112 6.1, 6.3: chunked alone is known", {
    f"Transfer-Encoding {text_of(value)}": framed(b"Transfer-Encoding: " + value, LAST)
    for value in (b"", b"identity", b"gzip", b"xchunked", b"chunkedx", b"chunked, gzip", b"gzip, chunked",
                  b"chunked, identity",
                  b"identity, chunked", b"chunked, chunked", b"chunked chunked", b",chunked", b"chunked,", b", chunked",
                  b'"chunked"', b"'chunked'", b"chunked;q=1", b"chunked;", b"chunk", b"chunked\xff",
                  b"\xa0chunked", b"\xc2\xa0chunked", b"chun\xe2\x84\xaaed", b"trailers", b"chunked\\", b"0", b"cow")
}, {400, 501})
refused("9110 5.5: no control bytes", {
    f"Transfer-Encoding {text_of(value)}": framed(b"Transfer-Encoding: " + value, LAST)
    for value in (b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"\x00chunked", b"chun\x00ked", b"chunked\x00",
                  b"\x01chunked", b"chunked\x7f", b"\rchunked", b"chunked\r", b"\nchunked", b"\x1fchunked")
}, {400, 501})
refused("9112 6.1: twice", {
    "chunked in two fields": framed(CHUNKED + CHUNKED[:-2], LAST),
    "chunked, then identity": framed(CHUNKED + b"Transfer-Encoding: identity", LAST),
    "identity, then chunked": framed(b"Transfer-Encoding: identity\r\n" + CHUNKED[:-2], LAST),
    "chunked, then gzip": framed(CHUNKED + b"Transfer-Encoding: gzip", LAST),
    "nonsense, then chunked": framed(b"Transfer-Encoding: x\r\n" + CHUNKED[:-2], LAST),
    "an empty field, then chunked": framed(b"Transfer-Encoding:\r\n" + CHUNKED[:-2], LAST),
    "chunked in two fields of other cases": framed(CHUNKED + b"transfer-encoding: CHUNKED", LAST),
}, {400, 501})
refused("9112 6.1: HTTP/1.0 has none", {
    "chunked in HTTP/1.0": b"POST /m0000000 HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + LAST,
    "chunked in HTTP/1.0 with keep-alive": b"POST /m0000000 HTTP/1.0\r\n" + HOST + CHUNKED +
                                           b"Connection: keep-alive\r\n\r\n" + LAST,
})
refused("9112 5.1, 5.2", {
    "a space before the colon of Transfer-Encoding": framed(b"Transfer-Encoding : chunked", LAST),
    "a tab before the colon of Transfer-Encoding": framed(b"Transfer-Encoding\t: chunked", LAST),
    "VT before the colon of Transfer-Encoding": framed(b"Transfer-Encoding\x0b: chunked", LAST),
    "0xff before the colon of Transfer-Encoding": framed(b"Transfer-Encoding\xff: chunked", LAST),
    "a space in Transfer-Encoding": framed(b"Transfer Encoding: chunked", LAST),
    "a space before Transfer-Encoding": framed(b"X: y\r\n Transfer-Encoding: chunked", LAST),
    "a tab before Transfer-Encoding": framed(b"X: y\r\n\tTransfer-Encoding: chunked", LAST),
    "NUL before Transfer-Encoding": framed(b"\x00Transfer-Encoding: chunked", LAST),
    "a colon before Transfer-Encoding": framed(b":Transfer-Encoding: chunked", LAST),
    "a folded Transfer-Encoding": framed(b"Transfer-Encoding:\r\n chunked", LAST),
    "a Transfer-Encoding with a folded rest": framed(CHUNKED + b" , gzip", LAST),
    "a folded Transfer-Encoding beside a length": framed(b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked"),
    "Transfer-Encoding behind LF in a value": framed(b"X: y\nTransfer-Encoding: chunked", LAST),
    "Transfer-Encoding behind CR in a value": framed(b"X: y\rTransfer-Encoding: chunked", LAST),
    "Transfer-Encoding behind CR LF CR": framed(b"X: y\r\n\rTransfer-Encoding: chunked", LAST),
    "Transfer-Encoding without colon": framed(b"Content-Length: 5\r\nTransfer-Encoding chunked"),
})
with_chunks("CHUNKED", "9112 7: case-insensitive", HELLO + LAST, lines=b"Transfer-Encoding: CHUNKED")
with_chunks("transfer-encoding: cHuNkEd", "9110 5.1", HELLO + LAST, lines=b"transfer-encoding: cHuNkEd")
with_chunks("chunked amid tabs and spaces", "9112 5: OWS", HELLO + LAST, lines=b"Transfer-Encoding: \t chunked \t ")
with_chunks("chunked without space", "9112 5: OWS", HELLO + LAST, lines=b"Transfer-Encoding:chunked")

refused("9110 7.6.1: no hop may drop these", {
    "Connection drops Host": field(b"Connection: host"),
    "Connection drops Content-Length": framed(b"Content-Length: 5\r\nConnection: content-length"),
    "Connection drops Content-Length, said before it": framed(b"Connection: Content-Length\r\nContent-Length: 5"),
    "Connection drops Transfer-Encoding": framed(CHUNKED + b"Connection: transfer-encoding", LAST),
    "Connection drops it in a list": framed(CHUNKED + b"Connection: close, x,Transfer-Encoding ,y", LAST),
    "a second Connection drops Host": field(b"Connection: close\r\nConnection: keep-alive, HOST"),
})

# ---- bodies where one may not expect them ----------------------------------------------------------------------------

for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PROPFIND", "BREW"):
    start = method.encode() + b" /m0000000 HTTP/1.1\r\n" + HOST
    passed(f"{method} with a body", "9110 9.3.1: the body is never a request",
           start + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
           method=method, framing="length", body=SMUGGLED)
    passed(f"{method} with a chunked body", "9110 9.3.1: the body is never a request",
           start + CHUNKED + b"\r\n%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n" + LAST,
           method=method, framing="chunked", body=SMUGGLED)
passed("POST without a body", "9112 6.3: no length, no body", POST + HOST + b"\r\n", method="POST")
passed("a chunked body that is empty", "9112 7.1", POST + HOST + CHUNKED + b"\r\n" + LAST, method="POST",
       framing="chunked")

# ---- chunks ----------------------------------------------------------------------------------------------------------

BAD_CHUNK_SIZES = (b"", b"0x5", b"+5", b"-5", b"5_", b"5zz", b" 5", b"\t5", b"g", b"5,5", b"5.", b"%35", b'"5"', b"5 5",
                   b"5h", b"\x005", b"5\x00", b"5\x0b", b"\xb5", b"0x", b"five", b"\r", b"10000000000000005")
refused("9112 7.1: chunk-size = 1*HEXDIG", {
    f"chunk size {text_of(size)}": framed(CHUNKED[:-2], size + b"\r\nhello\r\n" + LAST)
    for size in BAD_CHUNK_SIZES
}, begins=True)
refused("9112 7.1: chunk-size = 1*HEXDIG", {
    "a chunk size of 2^64 - 1": framed(CHUNKED[:-2], b"ffffffffffffffff\r\nhello\r\n" + LAST),
    "a chunk size of 2^63": framed(CHUNKED[:-2], b"8000000000000000\r\nhello\r\n" + LAST),
    "a chunk size of 20 digits": framed(CHUNKED[:-2], b"fffffffffffffffff005\r\nhello\r\n" + LAST),
}, {400, 413}, begins=True, fin=True)
refused("9112 7.1: CRLF and nothing else (erratum 7633)", {
    "LF behind a chunk size": framed(CHUNKED[:-2], b"5\nhello\r\n" + LAST),
    "CR behind a chunk size": framed(CHUNKED[:-2], b"5\rhello\r\n" + LAST),
    "CR CR LF behind a chunk size": framed(CHUNKED[:-2], b"5\r\r\nhello\r\n" + LAST),
    "LF behind the data": framed(CHUNKED[:-2], b"5\r\nhello\n" + LAST),
    "CR behind the data": framed(CHUNKED[:-2], b"5\r\nhello\r" + LAST),
    "nothing behind the data": framed(CHUNKED[:-2], b"5\r\nhello" + LAST),
    "two other bytes behind the data": framed(CHUNKED[:-2], b"5\r\nhelloXX" + LAST),
    "LF LF behind the data": framed(CHUNKED[:-2], b"5\r\nhello\n\n" + LAST),
    "more data than the size": framed(CHUNKED[:-2], b"5\r\nhello world\r\n" + LAST),
    "less data than the size": framed(CHUNKED[:-2], b"6\r\nhello\r\n" + LAST),
    "an empty line before the first chunk": framed(CHUNKED[:-2], b"\r\n" + HELLO + LAST),
    "an empty line between chunks": framed(CHUNKED[:-2], HELLO + b"\r\n" + HELLO + LAST),
    "LF behind the last chunk": framed(CHUNKED[:-2], HELLO + b"0\n\r\n"),
    "LF for the last line": framed(CHUNKED[:-2], HELLO + b"0\r\n\n"),
    "CR and something for the last line": framed(CHUNKED[:-2], HELLO + b"0\r\n\rX\r\n"),
    "all lines end with LF": framed(CHUNKED[:-2], b"5\nhello\n0\n\n"),
}, begins=True)
refused("9112 7.1: a sign or a point is no last chunk", {
    f"last chunk {size.decode()!r}": framed(CHUNKED[:-2], HELLO + size + b"\r\n\r\n")
    for size in (b"-0", b"+0", b"0x0", b"0.0", b" 0", b"0_")
}, begins=True)
refused("9112 8: cut", {
    "a cut chunk": framed(CHUNKED[:-2], b"5\r\nhel"),
    "a cut chunk size": framed(CHUNKED[:-2], b"5\r\nhello\r\n1"),
    "cut between chunks": framed(CHUNKED[:-2], HELLO),
    "cut behind the 0": framed(CHUNKED[:-2], HELLO + b"0"),
    "cut behind the last chunk": framed(CHUNKED[:-2], HELLO + b"0\r\n"),
    "cut in the last line": framed(CHUNKED[:-2], HELLO + b"0\r\n\r"),
    "cut in a trailer": framed(CHUNKED[:-2], HELLO + b"0\r\nX: a"),
    "cut behind a trailer": framed(CHUNKED[:-2], HELLO + b"0\r\nX: a\r\n"),
    "a chunked body that does not begin": framed(CHUNKED[:-2], b""),
}, begins=True, fin=True)
with_chunks("large and small letters", "9112 7.1", b"A\r\n0123456789\r\na\r\nabcdefghij\r\n" + LAST,
            body=b"0123456789abcdefghij")
with_chunks("leading zeros", "9112 7.1", b"0005\r\nhello\r\n000\r\n\r\n")
with_chunks("17 digits, 16 of them zeros", "9112 7.1", b"00000000000000005\r\nhello\r\n" + LAST, {400})
with_chunks("one byte each", "9112 7.1", b"".join(b"1\r\n%c\r\n" % c for c in b"hello") + LAST)
with_chunks("a chunk that looks like the end", "9112 7.1", b"9\r\n\r\n0\r\n\r\n\r\n\r\n" + LAST,
            body=b"\r\n0\r\n\r\n\r\n")
with_chunks("a chunk that is a request", "9112 7.1", b"%X\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n" + LAST,
            body=SMUGGLED)

# Extensions are for one hop (RFC 9112 7.1.1): all that is valid is read and goes no further.
for extension in (b";a", b";a=b", b";abc=def", b";a=b;c=d", b";a;b;c", b";a=b;c", b";a;b=c", b';a="b"', b';a="b c"',
                  b';a="b;c"',
                  b';a="b;c=\\"d\\""', b';a=""', b';a="\\\\"', b';a="\t\xe4"', b';a="b";c="d";e', b";!#$%&'*+-.^_`|~=1",
                  b";5=5"):
    with_chunks(f"chunk extension {text_of(extension)}", "9112 7.1.1",
                b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n")
with_chunks("an extension on the last chunk", "9112 7.1.1", HELLO + b"0;a=b;c=d\r\n\r\n")
for extension in (b" ;a=b", b"; a=b", b";a =b", b";a= b", b" ; a = b ", b"\t;a"):
    with_chunks(f"chunk extension {text_of(extension)}", "9112 7.1.1: bad white space may be tolerated",
                b"5" + extension + b"\r\nhello\r\n" + LAST, {400})
refused("9112 7.1.1", {
    f"chunk extension {text_of(extension)}": framed(CHUNKED[:-2], b"5" + extension + b"\r\nhello\r\n" + LAST)
    for extension in (b";a\n", b";a\r", b";a\rb", b";a\nb", b";a=b\n;c", b";a\x00", b";\x00", b";a=\x01", b";a=b\x7f",
                      b';a="b',
                      b';a="b\\"', b';a="\x00"', b';a="b\nc"', b';a="b\rc"', b';a="b"c', b";\xe4", b";a=\xe4", b";a=(",
                      b";a,b", b" a=b", b"a=b ")
}, begins=True)
for extension in (b";", b";=b", b";;", b";a=", b";a;", b";a;;b", b"; "):
    with_chunks(f"chunk extension {text_of(extension)}", "9112 7.1.1: incomplete, may be tolerated",
                b"5" + extension + b"\r\nhello\r\n" + LAST, {400})
refused("9112 7.1.1: bounded", {
    "an endless extension": framed(CHUNKED[:-2], b"5;" + b"a" * 100000 + b"\r\nhello\r\n" + LAST),
    "small chunks with large extensions": framed(CHUNKED[:-2], (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 40 + LAST),
    "an endless chunk size": framed(CHUNKED[:-2], b"0" * 100000 + b"5\r\nhello\r\n" + LAST),
}, begins=True)

# Trailers: see also test_trailers.py.
with_chunks("trailers", "9110 6.5", HELLO + b"0\r\nX-Checksum: 1\r\nX-Two: 2\r\n\r\n",
            trailers=(("X-Checksum", "1"), ("X-Two", "2")))
with_chunks("trailers that would be framing", "9110 6.5.1",
            HELLO + b"0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: evil\r\nX-Last: 1\r\n\r\n",
            trailers=(("X-Last", "1"),))
with_chunks("a Trailer field", "9110 6.6.2: passes", HELLO + b"0\r\nX-Checksum: 1\r\n\r\n",
            lines=CHUNKED + b"Trailer: X-Checksum", fields=(("Trailer", "X-Checksum"),),
            trailers=(("X-Checksum", "1"),))
refused("9112 7.1.2: as header fields", {
    f"trailer {text_of(line)}": framed(CHUNKED[:-2], HELLO + b"0\r\n" + line + b"\r\n\r\n")
    for line in (b"nonsense", b": x", b"X : x", b" X: x", b"X Y: x", b"X\xe4: x", b"X: a\x00b", b"X: a\rb", b"X: a\x01",
                 b"X: a\r\n b", b"X: a\n", b"X: a\nY: b", b"X\x00: a", b"\tX: a", b"X: a\x7f", b"0\r\n", b"(: a")
}, begins=True)
refused("9110 6.5: bounded", {
    "endless trailers": framed(CHUNKED[:-2], HELLO + b"0\r\n" + b"X: a\r\n" * 20000 + b"\r\n"),
    "an endless trailer": framed(CHUNKED[:-2], HELLO + b"0\r\nX: " + b"a" * 100000 + b"\r\n\r\n"),
}, {400, 431}, begins=True)

# ---- the request line ------------------------------------------------------------------------------------------------


def line(text):
    return text + b"\r\n" + HOST + b"\r\n"


refused("9112 3", {
    f"request line {text_of(text)}": line(text)
    for text in (b"hello world", b"GET", b"GET ", b"GET /m0000000", b"GET  /m0000000 HTTP/1.1",
                 b"GET /m0000000  HTTP/1.1",
                 b"GET /m0000000 HTTP/1.1 ", b" GET /m0000000 HTTP/1.1", b"\tGET /m0000000 HTTP/1.1",
                 b"GET\t/m0000000 HTTP/1.1",
                 b"GET /m0000000\tHTTP/1.1", b"GET\x0b/m0000000 HTTP/1.1", b"GET\xa0/m0000000 HTTP/1.1",
                 b"GET /m0000000\x0cHTTP/1.1", b"GET /m0000000 HTTP/1.1 x", b"GET /m0000000 x HTTP/1.1",
                 b"GET  HTTP/1.1",
                 b" /m0000000 HTTP/1.1", b"/m0000000 HTTP/1.1", b"GET HTTP/1.1", b"GET /m0000000 HTTP/1.1\r", b"\x00",
                 b"GET /m0000000 HTTP/1.1\x00", b"\xef\xbb\xbfGET /m0000000 HTTP/1.1", b"HTTP/1.1 200 OK",
                 b"GET /m0000000 HTTP/1.1\rX: y", b"\rGET /m0000000 HTTP/1.1")
})
refused("9112 2.3: HTTP-version", {
    f"version {text_of(text)}": line(b"GET /m0000000 " + text)
    for text in (b"HTTP/1.x", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/11", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.01",
                 b"HTTP/1,1",
                 b"http/1.1", b"Http/1.1", b"HTTP 1.1", b"HTTP/ 1.1", b"HTTP/1 .1", b"HTTPS/1.1", b"XTTP/1.1", b"ICY",
                 b"RTSP/1.0",
                 b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP/1.-1", b"HTTP/\xb9.1", b"HTTP", b"HTTP/", b"HTTP/1.1.1", b"SIP/2.0",
                 b"HTTP/11.1", b"HTTP/1.1/")
})
refused("9112 2.3, 9110 15.6.6: another major version", {
    f"version {text.decode()}": line(b"GET /m0000000 " + text)
    for text in (b"HTTP/0.9", b"HTTP/0.0", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9")
}, {400, 505})
for text in (b"HTTP/1.2", b"HTTP/1.9"):
    passed(f"version {text.decode()}", "9110 2.5: as the highest minor version that we know",
           line(b"GET /m0000000 " + text))
refused("9112 3: HTTP/0.9, other protocols", {
    "HTTP/0.9": b"GET /m0000000\r\n\r\n",
    "HTTP/0.9 without method": b"/m0000000\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "an SSL 2 handshake": b"\x80\x2e\x01\x00\x02" + bytes(40),
    "SOCKS 5": b"\x05\x01\x00",
    "a PROXY header that is not wanted": b"PROXY TCP4 10.1.1.1 10.2.2.2 1 2\r\n" + GET + HOST + b"\r\n",
    "a binary PROXY header that is not wanted": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + GET + HOST +
    b"\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"EHLO x\r\nMAIL FROM:<a@b>\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n\r\n",
    "four NULs": bytes(4) + b"\r\n\r\n",
})
refused("9113 3.4", {
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
}, {400, 505})

refused("9110 9.1: method = token", {
    f"method {text_of(method)}": line(method + b" /m0000000 HTTP/1.1")
    for method in (b"G(T", b"G)T", b"G<T", b"G@T", b"G,T", b"G;T", b"G:T", b"G\\T", b'G"T', b"G/T", b"G[T", b"G]T",
                   b"G?T", b"G={T", b"G{T", b"G\x00T", b"G\x7fT", b"G\xe4T", b"\x01GET", b"GET\x01", b"")
})
for method in ("FOOBAR", "get", "Get", "M-SEARCH", "X!#$%&'*+-.^_`|~1", "PURGE", "PROPFIND", "QUERY", "PRI", "0",
               "G" * 300):
    passed(f"method {method[:20]}", "9110 9.1: any token passes", line(f"{method} /m0000000 HTTP/1.1".encode()),
           method=method)
refused("9110 9.3.6, 9.3.8: not for an intermediary like this", {
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "CONNECT to a path": b"CONNECT /m0000000 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT with a body": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\nContent-Length: 5\r\n\r\nhello",
    "TRACE": b"TRACE /m0000000 HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE with a body": b"TRACE /m0000000 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    "TRACE that may not go further": b"TRACE /m0000000 HTTP/1.1\r\n" + HOST + b"Max-Forwards: 0\r\n\r\n",
}, {405, 501})

# ---- the target ------------------------------------------------------------------------------------------------------

refused("9112 3.2", {
    f"target {text_of(target)}": line(b"GET " + target + b" HTTP/1.1")
    for target in (b"m0000000", b"m0000000/b", b"?m0000000", b"*", b"**", b"*m0000000", b"/m0000000#b", b"#", b"/#",
                   b"/a b", b"x:80",
                   b"m0000000:80", b"http:/x/", b"http:x", b"http://", b"http:///m0000000", b"http:////", b"://x/",
                   b"http//x")
})
refused("9112 3.2: no white space, no control bytes", {
    f"target with {byte:#04x}": line(b"GET /a" + bytes([byte]) + b"b HTTP/1.1") for byte in (*range(0x21), 0x7f)
    if byte not in (0x0a,)
})
refused("9112 2.2", {"LF in the target": line(b"GET /a\nb HTTP/1.1")})
for byte in (0x80, 0xe4, 0xff):
    passed(f"target with {byte:#04x}", "3986: not valid, but some pass it",
           line(b"GET /m0000000" + bytes([byte]) + b" HTTP/1.1"), {400}, target=TARGET + chr(byte))
for target in ("/m0000000/a%20b;c?d=1&e=%2F&&f", "//m0000000", "//m0000000//b//", "/m0000000/../b",
               "/m0000000/%2e%2e/b", "/m0000000/./",
               "/m0000000?", "/m0000000??a?b", "/m0000000/*", "/?m0000000", "/m0000000%00", "/m0000000%0d%0aX:%20y",
               "/m0000000%",
               "/m0000000%zz", "/m0000000:80", "/http://y/m0000000", "/m0000000@y", "/m0000000,b;c!$'()*+=~_-."):
    passed(f"target {target}", "9112 3.2.1: passes untouched", line(f"GET {target} HTTP/1.1".encode()), target=target)
for target in ("/m0000000\\b", "/m0000000|b", "/m0000000[b]", "/m0000000{b}", "/m0000000^b", "/m0000000`b",
               '/m0000000"b"', "/m0000000<b>"):
    passed(f"target {target}", "3986: not valid, but browsers send some", line(f"GET {target} HTTP/1.1".encode()),
           {400}, target=target)
passed("OPTIONS *", "9112 3.2.4", b"OPTIONS * HTTP/1.1\r\nHost: m0000000\r\n\r\n", method="OPTIONS", target="*",
       fields=(("Host", "m0000000"),))
refused("9112 3.2.4: for OPTIONS alone", {
    f"{method.decode()} *": method + b" * HTTP/1.1\r\nHost: m0000000\r\n\r\n"
    for method in (b"POST", b"HEAD", b"options")
})
refused("9112 3.2.4", {"OPTIONS *x": b"OPTIONS *m0000000 HTTP/1.1\r\n" + HOST + b"\r\n"})


def absolute(target, host=b"Host: x\r\n", method=b"GET"):
    return method + b" " + target + b" HTTP/1.1\r\n" + host + b"\r\n"


passed("absolute-form", "9112 3.2.2", absolute(b"http://x/m0000000?a=b"), target="/m0000000?a=b")
passed("absolute-form in capitals", "9110 4.2.3", absolute(b"HTTP://x/m0000000"))
passed("absolute-form with a port", "9112 3.2.2", absolute(b"http://x:81/m0000000", b"Host: x:81\r\n"),
       fields=(("Host", "x:81"),))
passed("absolute-form with IPv6", "9112 3.2.2", absolute(b"http://[::1]:81/m0000000", b"Host: [::1]:81\r\n"),
       fields=(("Host", "[::1]:81"),))
passed("absolute-form without a path", "9112 3.2.1", absolute(b"http://m0000000", b"Host: m0000000\r\n"), target="/",
       fields=(("Host", "m0000000"),))
passed("absolute-form with a query alone", "9112 3.2.1", absolute(b"http://x?m0000000"), target="/?m0000000")
passed("absolute-form with a query alone, with slashes", "9112 3.2.1", absolute(b"http://x?m0000000=/a/b"),
       target="/?m0000000=/a/b")
passed("absolute-form for OPTIONS without a path", "9112 3.2.4",
       absolute(b"http://m0000000", b"Host: m0000000\r\n", b"OPTIONS"),
       method="OPTIONS", target="*", fields=(("Host", "m0000000"),))
passed("absolute-form for OPTIONS with a slash", "9112 3.2.4",
       absolute(b"http://m0000000/", b"Host: m0000000\r\n", b"OPTIONS"),
       method="OPTIONS", target="/", fields=(("Host", "m0000000"),))
passed("absolute-form and Host in other cases", "9110 4.2.3", absolute(b"http://m0000000.X/", b"Host: m0000000.x\r\n"),
       target="/", fields=(("Host", "m0000000.X"),))
passed("absolute-form with a port of its own", "9112 3.2.2: replaced or refused", absolute(b"http://x:80/m0000000"),
       {400}, fields=(("Host", "x:80"),))
passed("absolute-form in HTTP/1.0 without Host", "9112 3.2.2", b"GET http://x/m0000000 HTTP/1.0\r\n\r\n", ends=True,
       received="1.0")
refused("9112 3.2, 3.2.2", {
    f"absolute-form {text_of(target)}": absolute(target)
    for target in (b"http://y/m0000000", b"http://x.evil/m0000000", b"http://u@x/m0000000", b"http://u:p@x/m0000000",
                   b"http://x:8x/",
                   b"http://x:99999/", b"http://x:-1/", b"http://x,y/", b"http://x\\y/", b"http://[::1/",
                   b"http://[x]/",
                   b"http://::1/", b"http://x#f", b"http://@x/", b"http://x@/", b"http://:80/", b"http://?x",
                   b"ftp://x/", b"http:x/", b"javascript:x", b"http://x%zz/", b"http://\xe4/")
})
passed("https in absolute-form", "9110 7.4: not what this port serves", absolute(b"https://x/m0000000"), {400, 421})
refused("9112 3.2: Host must be there, and one", {
    "absolute-form without Host": absolute(b"http://x/m0000000", b""),
    "absolute-form with two Hosts": absolute(b"http://x/m0000000", HOST + HOST),
    "absolute-form with a bad Host": absolute(b"http://x/m0000000", b"Host: x, y\r\n"),
    "absolute-form with another Host": absolute(b"http://x/m0000000", b"Host: y\r\n"),
})

# ---- Host ------------------------------------------------------------------------------------------------------------

refused("9112 3.2: 400 MUST", {
    "no Host": GET + b"\r\n",
    "two Hosts": GET + HOST + b"Host: y\r\n\r\n",
    "the same Host twice": GET + HOST + HOST + b"\r\n",
    "two Hosts of other cases": GET + HOST + b"HOST: x\r\n\r\n",
    "two Hosts with one between": GET + HOST + b"A: b\r\nHost: y\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET /m0000000 HTTP/1.0\r\n" + HOST + b"Host: y\r\n\r\n",
    "a bad Host in HTTP/1.0": b"GET /m0000000 HTTP/1.0\r\nHost: x/y\r\n\r\n",
    "an empty Host and another": GET + b"Host:\r\n" + HOST + b"\r\n",
    "a space before the colon of Host": GET + b"Host : x\r\n\r\n",
    "a folded Host": GET + b"Host:\r\n x\r\n\r\n",
    "a Host with a folded rest": GET + b"Host: x\r\n y\r\n\r\n",
    "a Host as first, folded line": GET + b" Host: x\r\n\r\n",
    "a name that only looks like Host": GET + b"Hos: x\r\n\r\n",
})
refused("9112 3.2: 400 MUST", {
    f"Host {text_of(value)}": GET + b"Host: " + value + b"\r\n\r\n"
    for value in (b"a, b", b"a,b", b"a,", b",a", b"a b", b"a\tb", b"a/b", b"/", b"a?b", b"a#b", b"u@a", b"u:p@a", b"@a",
                  b"a@", b"a:8x",
                  b"a:-1", b"a:+1", b"a:65536", b"a:99999999999", b"a:80:80", b"a:80 80", b"a: 80", b"a :80", b":80",
                  b":", b"[::1",
                  b"::1]", b"[::1]x", b"[::1]80", b"::1", b"[]", b"[x]", b"[1.2.3.4]", b"[[::1]]", b"http://a",
                  b"http://a/", b'"a"',
                  b"a\\b", b"<a>", b"a|b", b"a^b", b"{a}", b"a%", b"a%4", b"a%zz", b"\xe4", b"a\xff", b"a\x00b",
                  b"\x00", b"a\x01", b"a\x0b", b"a\x7f", b"a\rb", b"*/*", b"a`b")
})
for value in ("example.com", "EXAMPLE.com", "a:80", "a:", "a.", "a_b", "127.0.0.1", "127.0.0.1:8080", "[::1]",
              "[::1]:80", "[2001:DB8::1]", "xn--bcher-kva.example", "a-b.c-d", "1", "a%41", "~"):
    passed(f"Host {value}", "9110 7.2", GET + f"Host: {value}\r\n\r\n".encode(), fields=(("Host", value),))
for value in ("[::ffff:1.2.3.4]", "[fe80::1]:65535", "a:0", "a;b", "a'b", "a(b)", "a!$&*+="):
    passed(f"Host {value}", "3986 3.2.2: valid, but odd", GET + f"Host: {value}\r\n\r\n".encode(), {400},
           fields=(("Host", value),))
passed("Host with spaces around", "9112 5: OWS", GET + b"Host: \t x \t \r\n\r\n")
passed("host in small letters", "9110 5.1", GET + b"host: x\r\n\r\n", fields=(("host", "x"),))
passed("HOST in capitals, without space", "9110 5.1", GET + b"HOST:x\r\n\r\n", fields=(("HOST", "x"),))
passed("Host as the last field", "9110 7.2", GET + b"A: b\r\nC: d\r\nHost: x\r\n\r\n",
       fields=(("A", "b"), ("C", "d"), ("Host", "x")))
passed("an empty Host", "9112 3.2: allowed without an authority", GET + b"Host:\r\n\r\n", {400}, fields=(("Host", ""),))
passed("HTTP/1.0 without Host", "9112 3.2: the forwarded one has one", b"GET /m0000000 HTTP/1.0\r\n\r\n", ends=True,
       received="1.0", fields=(("Host", None),))
passed("HTTP/1.0 with Host", "9112 3.2", b"GET /m0000000 HTTP/1.0\r\n" + HOST + b"\r\n", ends=True, received="1.0")
passed("HTTP/1.0 with keep-alive", "9112 9.3", b"GET /m0000000 HTTP/1.0\r\n" + HOST + b"Connection: Keep-Alive\r\n\r\n",
       received="1.0")
passed("HTTP/1.0 with a body", "9112 6.3", b"POST /m0000000 HTTP/1.0\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
       ends=True, received="1.0", method="POST", framing="length", body=b"hello")

# ---- fields ----------------------------------------------------------------------------------------------------------

CONTROLS = [byte for byte in (*range(0x20), 0x7f) if byte != 0x09]
refused("9110 5.5: no control bytes", {
    f"value with {byte:#04x}": field(b"X: a" + bytes([byte]) + b"b") for byte in CONTROLS
})
refused("9110 5.5: no control bytes", {
    f"value that begins with {byte:#04x}": field(b"X:" + bytes([byte])) for byte in (0, 1, 0x0b, 0x0c, 0x0d, 0x7f)
})
refused("9110 5.5: no control bytes", {
    f"value that ends with {byte:#04x}": field(b"X: a" + bytes([byte])) for byte in (0, 1, 0x0b, 0x0c, 0x0d, 0x7f)
})
refused("9110 5.5: no control bytes", {
    "a long value with NUL": field(b"X: " + b"a" * 61 + b"\x00" + b"b" * 9),
    "a value of bytes that hide a control byte": field(b"X: " + b"\x80" * 11 + b"\x1f" + b"\x80" * 4),
})
refused("9110 5.1: name = token", {
    f"name with {chr(byte)!r}": field(b"X" + bytes([byte]) + b"Y: a")
    for byte in b" \t\"(),/;<=>?@[\\]{}\x00\x0b\x7f\x80\xe4\xff"
})
refused("9112 5", {
    "a line without colon": field(b"nonsense"),
    "a line without colon as the last": GET + HOST + b"A: b\r\nnonsense\r\n\r\n",
    "an empty name": field(b": x"),
    "a colon alone": field(b":"),
    "a space before the colon": field(b"X : x"),
    "a tab before the colon": field(b"X\t: x"),
    "a space at the beginning": GET + b" X: a\r\n" + HOST + b"\r\n",
    "a tab at the beginning": GET + b"\tX: a\r\n" + HOST + b"\r\n",
    "a line of one space at the beginning": GET + b" \r\n" + HOST + b"\r\n",
    "NUL as a line": field(b"\x00"),
    "a request line as a field": field(b"GET /smuggled HTTP/1.1"),
})
refused("9112 5.2: folded lines", {
    "a folded line": field(b"X: a\r\n b"),
    "a line folded with a tab": field(b"X: a\r\n\tb"),
    "a folded empty line": field(b"X: a\r\n "),
    "a folded line of spaces": field(b"X: a\r\n   \r\n b"),
    "a folded empty value": field(b"X:\r\n a"),
    "a folded line that looks like a field": field(b"X: a\r\n Y: b"),
    "a folded Connection": field(b"Connection:\r\n close"),
    "OPTIONS with Expect and a folded length": b"OPTIONS /m0000000 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                                               b"X: y\r\n Content-Length: 5\r\n\r\nhello",
})
refused("9112 2.2: CRLF", {
    "LF everywhere": b"GET /m0000000 HTTP/1.1\nHost: x\n\n",
    "LF behind the request line": b"GET /m0000000 HTTP/1.1\n" + HOST + b"\r\n",
    "LF behind a field": GET + b"Host: x\n\r\n",
    "LF for the empty line": GET + HOST + b"\n",
    "LF between fields": GET + HOST + b"X: a\nY: b\r\n\r\n",
    "CR for all line ends but the last": b"GET /m0000000 HTTP/1.1\rHost: x\r\r\n",
    "CR CR LF": field(b"X: a\r"),
    "CR CR LF behind the request line": b"GET /m0000000 HTTP/1.1\r\r\n" + HOST + b"\r\n",
    "CR CR LF for the last line": GET + HOST + b"\r\r\n",
    "LF CR": GET + b"Host: x\n\r\n\r",
    "CR LF CR and something": GET + HOST + b"\rX: a\r\n\r\n",
    "LF before the request line": b"\n" + GET + HOST + b"\r\n",
    "a line of one space before the request line": b" \r\n" + GET + HOST + b"\r\n",
})

passed("fields as they came", "9110 5.3: order and spelling are kept",
       field(b"x-TWO: a,b\r\nCookie: a=b; c=d\r\nX-One: first\r\nX-One: second\r\nX-Empty:\r\nX-Last:z"),
       fields=(("Host", "x"), ("x-TWO", "a,b"), ("Cookie", "a=b; c=d"), ("X-One", "first"), ("X-One", "second"),
               ("X-Empty", ""), ("X-Last", "z")))
passed("8-bit bytes in a value", "9110 5.5: obs-text", field(b"X: \x80\xa0\xe4\xff" + bytes(range(0x80, 0x100))),
       fields=(("Host", "x"), ("X", "\x80\xa0\xe4\xff" + bytes(range(0x80, 0x100)).decode("latin-1"))))
passed("a tab in a value", "9110 5.5", field(b"X: a\tb\t\tc"), fields=(("Host", "x"), ("X", "a\tb\t\tc")))
passed("white space around a value", "9112 5: OWS", field(b"X:\t  a  b \t "), fields=(("Host", "x"), ("X", "a  b")))
passed("a value of white space", "9112 5: OWS", field(b"X:  \t  "), fields=(("Host", "x"), ("X", "")))
passed("every character of a name", "9110 5.6.2", field(b"!#$%&'*+-.^_`|~09AZaz: a"),
       fields=(("Host", "x"), ("!#$%&'*+-.^_`|~09AZaz", "a")))
passed("colons in a value", "9110 5.5", field(b"X: a:b::c: d"), fields=(("Host", "x"), ("X", "a:b::c: d")))
passed("a value that begins with a colon", "9110 5.5", field(b"X::a"), fields=(("Host", "x"), ("X", ":a")))
passed("a value that looks like a request", "9110 5.5", field(b"X: GET /smuggled HTTP/1.1"),
       fields=(("Host", "x"), ("X", "GET /smuggled HTTP/1.1")))
passed("unknown fields like ours", "9110 5.1",
       field(b"X-Forwarded: a\r\nVia2: b\r\nX-Request-IDs: c\r\nConnections: X\r\nTEs: d"),
       fields=(("Host", "x"), ("X-Forwarded", "a"), ("Via2", "b"), ("X-Request-IDs", "c"), ("Connections", "X"),
               ("TEs", "d")))
for count, name in ((1, "an empty line"), (2, "two empty lines")):
    passed(f"{name} before the request", "9112 2.2: at least one is ignored", b"\r\n" * count + GET + HOST + b"\r\n",
           {400} if count > 1 else ())

# ---- limits ----------------------------------------------------------------------------------------------------------

passed("a target of 8000 bytes", "9112 3: should be supported", line(b"GET /m0000000" + b"a" * 7991 + b" HTTP/1.1"),
       target=TARGET + "a" * 7991)
passed("a hundred fields", "limits.headers", GET + HOST + b"X: a\r\n" * 99 + b"\r\n", fields=(("Host", "x"),) +
       (("X", "a"),) * 99)
FULL = 16 * 1024 - len(GET + HOST + b"X: \r\n\r\n")
passed("a head of exactly 16 KiB", "limits.header_bytes", field(b"X: " + b"a" * FULL),
       fields=(("Host", "x"), ("X", "a" * FULL)))
refused("9110 15.5.15", {
    "a target of 20 KB": line(b"GET /m0000000" + b"a" * 20000 + b" HTTP/1.1"),
    "a target without end": b"GET /m0000000" + b"a" * 100000,
}, {414})
refused("9110 9.1", {"a method without end": b"G" * 100000}, {400, 414, 501})
refused("9112 2.3", {"a version without end": b"GET /m0000000 HTTP/1." + b"1" * 100000}, {400, 414})
refused("6585 5", {
    "a field of 20 KB": field(b"X: " + b"a" * 20000),
    "a name of 20 KB": field(b"X" * 20000 + b": a"),
    "a head of 20 KB": field(b"\r\n".join(b"X%d: %s" % (i, b"a" * 300) for i in range(60))),
    "a head of 16 KiB and 1 byte": field(b"X: " + b"a" * (FULL + 1)),
    "101 fields": GET + HOST + b"X: a\r\n" * 100 + b"\r\n",
    "200 fields": field(b"\r\n".join(b"X%d: a" % i for i in range(200))),
    "a head without end": GET + HOST + b"X: a\r\n" * 10000,
    "a field without end": GET + HOST + b"X: " + b"a" * 100000,
}, {431})
refused("9112 2.2: bounded", {
    "a thousand empty lines": b"\r\n" * 1000 + GET + HOST + b"\r\n",
    "empty lines without end": b"\r\n" * 50000,
})

# ---- for one hop only ------------------------------------------------------------------------------------------------

X1 = (("Host", "x"), ("X-Stays", "1"))


def hop(name, lines, ends=False, also_refused=(), rule="9110 7.6.1", **more):
    """Only X-Stays is left of the lines."""
    passed(name, rule, field(lines + b"\r\nX-Stays: 1"), also_refused, ends=ends, **{"fields": X1, **more})


hop("Connection with names",
    b"Connection: keep-alive, X-Secret\r\nConnection: FOO\r\nX-Secret: 1\r\nfoo: 2\r\nx-secret: 3")
hop("Connection with empty members", b"Connection: ,, ,X-Secret,,\r\nX-Secret: 1")
hop("Connection with odd white space", b"Connection:\tX-Secret\t ,  X-Other \r\nX-Secret: 1\r\nX-Other: 2")
hop("Connection behind what it names", b"X-Secret: 1\r\nConnection: X-Secret")
hop("Connection: close", b"Connection: close", ends=True)
hop("Connection: CLOSE in a list", b"Connection: X-Secret , CLOSE\r\nX-Secret: 1", ends=True)
hop("Connection: close and keep-alive", b"Connection: keep-alive, close", ends=True)
hop("Connection: keep-alive", b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=10")
hop("an empty Connection", b"Connection:")
hop("Connection names what is not there", b"Connection: X-Absent")
hop("Connection names itself", b"Connection: connection, keep-alive")
hop("Connection names Cookie", b"Connection: cookie\r\nCookie: a=b")
hop("Connection names Authorization", b"Connection: Authorization\r\nAuthorization: Basic eDp5")
hop("Connection names Via", b"Connection: Via\r\nVia: 1.1 before", rule="CVE-2022-31813")
hop("Connection names X-Forwarded-For",
    b"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host\r\nX-Forwarded-For: 10.1.1.1",
    rule="CVE-2024-45410")
hop("Connection names X-Request-ID", b"Connection: X-Request-ID\r\nX-Request-ID: fake", rule="CVE-2024-45410")
hop("Connection names Forwarded", b"Connection: Forwarded\r\nForwarded: for=10.1.1.1")
hop("Connection names Content-Type", b"Connection: content-type\r\nContent-Type: text/plain")
hop("Connection names Expect", b"Connection: Expect\r\nExpect: 100-continue")
hop("a quoted Connection", b'Connection: "close"', also_refused={400})
hop("Proxy-Connection", b"Proxy-Connection: keep-alive, X-Stays", rule="9110 7.6.1: names nothing")
hop("Keep-Alive", b"Keep-Alive: timeout=5")
hop("TE without Connection", b"TE: gzip")
hop("TE: gzip", b"TE: gzip\r\nConnection: TE")
hop("TE: trailers and more", b"TE: trailers, deflate;q=0.5\r\nConnection: TE", rule="only the plain value passes")
hop("TE: trailers with a weight", b"TE: trailers;q=0.5\r\nConnection: TE", rule="only the plain value passes")
hop("two TE", b"TE: trailers\r\nTE: gzip\r\nConnection: TE", rule="only the plain value passes")
hop("an empty TE", b"TE:\r\nConnection: TE")
hop("TE: trailers", b"TE: trailers\r\nConnection: TE", te=True, rule="9110 10.1.4")
hop("te: trailers in a list of Connection", b"Connection: keep-alive, te\r\nte: trailers", te=True, rule="9110 10.1.4")
hop("Upgrade to h2c",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    rule="9110 7.8: h2c never")
hop("Upgrade to h2c that keeps its settings", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    rule="9110 7.8: h2c never", fields=(("Host", "x"), ("HTTP2-Settings", "AAMAAABk"), ("X-Stays", "1")))
hop("Upgrade to H2C among others", b"Connection: upgrade\r\nUpgrade: H2C, TLS/1.2, foo/1", rule="9110 7.8: h2c never")
hop("Upgrade without Connection", b"Upgrade: websocket", rule="9110 7.8: then it is not meant for us")
passed("Upgrade with a body", "9110 7.8; smuggling by WebSocket",
       framed(b"Content-Length: 5\r\nConnection: Upgrade\r\nUpgrade: websocket"), {400}, method="POST",
       framing="length", body=b"hello")
passed("Upgrade with a chunked body", "9110 7.8; smuggling by WebSocket",
       framed(CHUNKED + b"Connection: Upgrade\r\nUpgrade: websocket", HELLO + LAST), {400}, method="POST",
       framing="chunked", body=b"hello")
passed("Upgrade in HTTP/1.0", "9110 7.8: MUST ignore",
       b"GET /m0000000 HTTP/1.0\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", ends=True,
       received="1.0")
passed("Upgrade to an unknown protocol", "9110 7.8", field(b"Connection: Upgrade\r\nUpgrade: foo/2"))

passed("X-Forwarded of a stranger", "not believed",
       field(b"X-Forwarded-For: 10.1.1.1\r\nx-forwarded-for: 10.2.2.2\r\nX-Forwarded-Proto: https\r\n"
             b"X-Forwarded-Host: bank.example\r\nForwarded: for=10.3.3.3"))
passed("Via of the hops before", "9110 7.6.3", field(b"Via: 1.0 a, 1.1 b"), via=("1.0 a, 1.1 b",))
passed("an X-Request-ID of the client", "headers.request_id", field(b"x-request-id: my-own-id"), request_id="my-own-id")
passed("a Date, an Accept and more", "end to end",
       field(b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nAccept: */*\r\nProxy-Authorization: a"),
       fields=(("Host", "x"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Accept", "*/*"),
               ("Proxy-Authorization", "a")))

# ---- Expect, Max-Forwards --------------------------------------------------------------------------------------------

with_length("Expect: 100-continue, and no wait for it", "9110 10.1.1", b"Expect: 100-continue\r\nContent-Length: 5",
            fields=(("Expect", "100-continue"),))
passed("Expect without a body", "9110 10.1.1: it cannot be meant", field(b"Expect: 100-continue"), fields=(("Host", "x"),))
passed("Expect in HTTP/1.0", "9110 10.1.1: MUST ignore",
       b"POST /m0000000 HTTP/1.0\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", ends=True,
       received="1.0", method="POST", framing="length", body=b"hello")
with_length("another expectation", "9110 10.1.1: 417, or the backend decides", b"Expect: nonsense\r\nContent-Length: 5",
            {417}, fields=(("Expect", "nonsense"),))
add("OPTIONS that may not go further", "9110 7.6.2", b"OPTIONS /m0000000 HTTP/1.1\r\n" + HOST +
    b"Max-Forwards: 0\r\n\r\n", answered=200)
add("OPTIONS * that may not go further", "9110 7.6.2",
    b"OPTIONS * HTTP/1.1\r\nHost: m0000000\r\nMax-Forwards: 0\r\n\r\n", answered=200)
add("OPTIONS with a body that may not go further", "9110 7.6.2", b"OPTIONS /m0000000 HTTP/1.1\r\n" + HOST +
    b"max-forwards: 000\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED, answered=200)
for before, after in (("1", "0"), ("2", "1"), ("10", "9"), ("100", "99"), ("007", "6")):
    passed(f"OPTIONS with Max-Forwards {before}", "9110 7.6.2: decremented",
           f"OPTIONS /m0000000 HTTP/1.1\r\nHost: x\r\nMax-Forwards: {before}\r\n\r\n".encode(), method="OPTIONS",
           fields=(("Host", "x"), ("Max-Forwards", after)))
for value in ("", "-1", "+1", "x", "1x", "0x1", "1, 2", "1 2", "1.0"):
    passed(f"OPTIONS with Max-Forwards {value!r}", "9110 7.6.2: no number, so refused or none of ours",
           f"OPTIONS /m0000000 HTTP/1.1\r\nHost: x\r\nMax-Forwards: {value}\r\n\r\n".encode(), {400}, method="OPTIONS",
           fields=(("Host", "x"), ("Max-Forwards", value)))
passed("GET with Max-Forwards", "9110 7.6.2: may be ignored", field(b"Max-Forwards: 0"),
       fields=(("Host", "x"), ("Max-Forwards", "0")))

_names = [case.name for case in CASES]
assert len(set(_names)) == len(_names), sorted({name for name in _names if _names.count(name) > 1})
assert all(case.passed is None or MARK in case.data for case in CASES)
