"""HTTP itself malformed: first lines, headers, lengths, chunks; what proxies and servers read differently."""

import json

from tests.corpus.case import GOOD, LINES, SCORE, Case, bare, post, records

_ONE = records(GOOD)
_INVALID = "expected an HTTP/1.1 request, got other bytes"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_HOST = b"host: pumps\r\nconnection: close\r\n"
_SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: pumps\r\n\r\n"


def _head(headers: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST %b %b\r\n%bcontent-type: application/json\r\n%b\r\n" % (SCORE.encode(), version, _HOST, headers)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _no_http(name: str, request: bytes) -> Case:
    return Case(name, request, 400, "not-http", _INVALID)


_LINES: dict[str, bytes] = {
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n",
    "a greeting of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": bare(b" /healthz/live HTTP/1.1"),
    "no path": bare(b"GET HTTP/1.1"),
    "a method in small letters": bare(b"get /healthz/live HTTP/1.1"),
    "a method that there is not": bare(b"FETCH /healthz/live HTTP/1.1"),
    "a method with a zero byte": bare(b"G\x00T /healthz/live HTTP/1.1"),
    "HTTP/3.0": bare(b"GET /healthz/live HTTP/3.0"),
    "HTTP/1.9": bare(b"GET /healthz/live HTTP/1.9"),
    "HTTP without a version": bare(b"GET /healthz/live HTTP"),
    "another protocol": bare(b"GET /healthz/live ICY/1.1"),
    "a path with a blank": bare(b"GET /healthz live HTTP/1.1"),
    "a path with a zero byte": bare(b"GET /healthz\x00live HTTP/1.1"),
    "a path without a slash": bare(b"GET healthz/live HTTP/1.1"),
    "a backslash for a path": bare(b"GET \\healthz HTTP/1.1"),
    "words": b"hello\r\n\r\n",
    "a mail": b"EHLO pumps\r\nMAIL FROM:<a@b>\r\n\r\n",
    "a command of a store": b"*1\r\n$4\r\nPING\r\n",
}
_HEADERS: dict[str, bytes] = {
    "a header without a colon": b"x-pump\r\n",
    "a header without a name": b": 1\r\n",
    "a header with a blank before its colon": b"x-pump : 1\r\n",
    "a header with a blank in its name": b"x pump: 1\r\n",
    "a header with a zero byte in its name": b"x\x00pump: 1\r\n",
    "a header with a zero byte in its value": b"x-pump: 1\x002\r\n",
    "a header with a carriage return in its value": b"x-pump: 1\r2\r\n",
    "a header that is folded at the start": b" x-pump: 1\r\n",
    "a header with a control character": b"x-pump: \x01\r\n",
    "a length that is negative": b"content-length: -1\r\n",
    "a length with a plus sign": b"content-length: +2\r\n",
    "a length in hexadecimal": b"content-length: 0x2\r\n",
    "a length with a point": b"content-length: 2.0\r\n",
    "a length that is text": b"content-length: two\r\n",
    "a length of two numbers": b"content-length: 2, 2\r\n",
    "a length beyond 64 bits": b"content-length: 99999999999999999999999\r\n",
    "an empty length": b"content-length:\r\n",
    "two lengths": b"content-length: 2\r\ncontent-length: 3\r\n",
    "two equal lengths": b"content-length: 2\r\ncontent-length: 2\r\n",
    "a length and chunks": b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
    "chunks and a length": b"transfer-encoding: chunked\r\ncontent-length: 2\r\n",
    "chunks twice": b"transfer-encoding: chunked, chunked\r\n",
    "chunks before another coding": b"transfer-encoding: chunked, identity\r\n",
    "chunks with a blank before the colon": b"transfer-encoding : chunked\r\n",
    "chunks with a control character": b"transfer-encoding: \x0bchunked\r\n",
    "a coding that is almost chunked": b"transfer-encoding: xchunked\r\n",
    "chunks in quotes": b'transfer-encoding: "chunked"\r\n',
}
_CHUNKS: dict[str, bytes] = {
    "a chunk size that is no number": b"xyz\r\n{}\r\n0\r\n\r\n",
    "a chunk size that is negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with a plus sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "an empty chunk size": b"\r\n{}\r\n0\r\n\r\n",
    "a chunk size with a blank before it": b" 2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": b"2\r\n{}{}\r\n0\r\n\r\n",
    "a chunk without its line break": b"2\r\n{}0\r\n\r\n",
    "a chunk size with a zero byte": b"2\x00\r\n{}\r\n0\r\n\r\n",
    "a chunk size with a carriage return alone": b"2\r{}\r\n0\r\n\r\n",
    "a trailer without a colon": b"2\r\n{}\r\n0\r\nx-pump\r\n\r\n",
}


def _smuggling() -> list[Case]:
    """One request to a reader of lengths, two to a reader of chunks, and the other way round: never two answers."""
    body = b"0\r\n\r\n" + _SMUGGLED
    return [
        _no_http(f"a request hidden behind {name}", _head(headers) + body)
        for name, headers in {
            "a length and chunks": b"content-length: %d\r\n" % len(body) + _CHUNKED,
            "chunks and a length": _CHUNKED + b"content-length: %d\r\n" % len(body),
            "two lengths": b"content-length: 5\r\ncontent-length: %d\r\n" % len(body),
            "chunks in a folded header": b"content-length: %d\r\ntransfer-encoding:\r\n chunked\r\n" % len(body),
            "chunks with a tab": b"content-length: %d\r\ntransfer-encoding:\tchunked\r\n" % len(body),
            "two codings": b"content-length: %d\r\ntransfer-encoding: x\r\n" % len(body) + _CHUNKED,
        }.items()
    ]


def cases() -> list[Case]:
    """All of them."""
    too_large = "expected a body of at most 16777216 bytes, got "
    line = json.dumps(GOOD).encode() + b"\n"
    return [
        *(_no_http(name, request) for name, request in _LINES.items()),
        *(_no_http(name, _head(header) + b"{}") for name, header in _HEADERS.items()),
        *(_no_http(name, _head(_CHUNKED) + body) for name, body in _CHUNKS.items()),
        *_smuggling(),
        Case("chunks of HTTP/1.0", _head(_CHUNKED, b"HTTP/1.0") + _chunk(_ONE) + b"0\r\n\r\n", 200),
        Case(
            "a body in chunks of a byte",
            _head(_CHUNKED) + b"".join(_chunk(_ONE[i : i + 1]) for i in range(len(_ONE))) + b"0\r\n\r\n",
            200,
        ),
        Case(
            "chunks with extensions and trailers",
            _head(_CHUNKED) + b"%x;a=b\r\n%b\r\n0\r\nx-pump: 1\r\n\r\n" % (len(_ONE), _ONE),
            200,
        ),
        Case("no chunk", _head(_CHUNKED) + b"0\r\n\r\n", 400, "not-json", "the body is not JSON: "),
        Case(
            "a length of gigabytes",
            post(b"", length=99_000_000_000),
            413,
            "body-too-large",
            f"{too_large}99000000000",
        ),
        Case(
            "a length of one byte too many",
            post(b"", length=16 * 2**20 + 1),
            413,
            "body-too-large",
            f"{too_large}16777217",
        ),
        Case(
            "a length behind thousands of zeros",
            _head(b"content-length: %b%d\r\n" % (b"0" * 5_000, len(_ONE))) + _ONE,
            200,
        ),
        Case(
            "chunks of one byte too many",
            _head(_CHUNKED) + _chunk(b" " * (16 * 2**20 + 1)),
            413,
            "body-too-large",
            f"{too_large}more",
        ),
        Case("16 megabytes of blanks", post(b" " * 16 * 2**20), 400, "not-json", "the body is not JSON: "),
        Case(
            "lines in chunks of a byte",
            bare(
                b"POST %b HTTP/1.1" % SCORE.encode(),
                _HOST + b"content-type: %b\r\n" % LINES.encode() + _CHUNKED,
                b"".join(_chunk(line[i : i + 1]) for i in range(len(line))) + b"0\r\n\r\n",
            ),
            200,
        ),
        Case(
            "a name that was made to lead here",
            bare(b"GET /v1/models HTTP/1.1", b"host: example.org\r\nconnection: close\r\n"),
            421,
            "wrong-host",
            "expected the header Host to have an address",
        ),
        Case("a strange host", bare(b"GET /healthz/live HTTP/1.1", b"host: [::\r\nconnection: close\r\n"), 200),
        Case(
            "a host of another", bare(b"GET /healthz/live HTTP/1.1", b"host: example.org\r\nconnection: close\r\n"), 200
        ),
        Case("a path with a scheme", bare(b"GET http://pumps/healthz/live HTTP/1.1"), 200),
        Case("an expectation that is not met", post(_ONE, headers=b"expect: 42\r\n"), 200),
        Case(
            "a request for another protocol",
            bare(b"GET /healthz/live HTTP/1.1", b"host: pumps\r\nconnection: close, upgrade\r\nupgrade: h2c\r\n"),
            200,
        ),
        Case(
            "a request for a socket",
            bare(
                b"GET /v1/models HTTP/1.1",
                b"host: pumps\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nconnection: close\r\n",
            ),
            200,
        ),
        Case("a body of a GET", bare(b"GET /v1/models HTTP/1.1", _HOST + b"content-length: 2\r\n", b"{}"), 200),
    ]
