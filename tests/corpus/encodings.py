"""Bodies in other encodings than UTF-8, and text that UTF-8 does not have."""

import gzip
import zlib

from tests.corpus.case import GOOD, JSON, LINES, SCORE, Case, post, records, refused, with_value, wrong_record

_ONE = records(GOOD)
_BOMB = gzip.compress(b" " * 10_000_000)

# Within the text of a value: what no UTF-8 has.
_BYTES: dict[str, bytes] = {
    "a byte of Latin-1": b"\xe9",
    "a byte that stands nowhere": b"\xff",
    "a byte that continues nothing": b"\x80",
    "a character cut short": b"\xe2\x82",
    "an overlong slash": b"\xc0\xaf",
    "an overlong zero": b"\xc0\x80",
    "an overlong quote": b"\xc0\xa2",
    "an overlong slash of three bytes": b"\xe0\x80\xaf",
    "an overlong slash of four bytes": b"\xf0\x80\x80\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "a character beyond the last": b"\xf4\x90\x80\x80",
    "a character of five bytes": b"\xf8\x88\x80\x80\x80",
    "a character of six bytes": b"\xfc\x84\x80\x80\x80\x80",
}
_HALVES: dict[str, bytes] = {
    "a high surrogate alone": b"\\ud800",
    "a low surrogate alone": b"\\udc00",
    "surrogates in the wrong order": b"\\ude00\\ud83d",
    "two high surrogates": b"\\ud83d\\ud83d",
    "a high surrogate before a letter": b"\\ud83dx",
    "a high surrogate before another escape": b"\\ud83d\\n",
}
_CODINGS = {
    "gzip": gzip.compress(_ONE),
    "x-gzip": gzip.compress(_ONE),
    "deflate": zlib.compress(_ONE),
    "br": b"\x1b" + bytes(20),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "compress": b"\x1f\x9d" + bytes(20),
    "identity, gzip": gzip.compress(_ONE),
    "gzip, gzip": gzip.compress(gzip.compress(_ONE)),
    "aes128gcm": bytes(40),
    "utf-8": _ONE,
    "*": _ONE,
    "gzip;q=0": _ONE,
    "GZIP": gzip.compress(_ONE),
}
_CHARSETS = ("utf-16", "latin-1", "us-ascii", "utf8mb4", '"', "''", "utf-8,utf-16", "utf-8\xe9", "../../etc/passwd")


def _compressed(coding: str, body: bytes, content_type: str = JSON, name: str = "") -> Case:
    detail = f"expected a body that is not compressed, got Content-Encoding '{coding}'"
    headers = b"content-encoding: %b\r\n" % coding.encode()
    request = post(body, content_type=content_type, headers=headers)
    return Case(name or f"content coding {coding}", request, 415, "unsupported-media-type", detail)


def _in_a_value(raw: bytes) -> bytes:
    return with_value("valve", b'"' + raw + b'"')


def cases() -> list[Case]:
    """All of them."""
    not_utf8, forms = (
        "the body is not UTF-8",
        "expected Content-Type application/json, application/x-ndjson, text/csv, ",
    )
    of_record = ": expected UTF-8, got bytes that are not"
    wrong_text = ", field 'valve': expected a string, got "
    half = "record 1, field 'valve': expected whole characters, got a surrogate without its other half"
    return [
        *(wrong_record(f"{name} in a value", _in_a_value(raw), wrong_text) for name, raw in _BYTES.items()),
        wrong_record("a byte of Latin-1 in a name", b'{"valv\xe9":1}', of_record),
        wrong_record("invalid bytes in a value that is not scored", with_value("failed", b'"\xff"'), of_record),
        refused("a byte of Latin-1 in the body's name", b'{"r\xe9cords":[]}', 400, "not-json", not_utf8),
        refused("a byte of Latin-1 in a column's name", b'{"columns":{"valv\xe9":[]}}', 400, "not-json", not_utf8),
        *(
            refused(f"{name}, escaped", records(GOOD, _in_a_value(raw)), 400, "not-json", half)
            for name, raw in _HALVES.items()
        ),
        *(
            refused(f"UTF-{name}", _ONE.decode().encode(f"utf-{name}"), 400, "not-json", "the body is not ")
            for name in ("16", "16-le", "16-be", "32", "32-le", "32-be")
        ),
        refused("EBCDIC", _ONE.decode().encode("cp500"), 400, "not-json", not_utf8),
        refused("UTF-7", b"+AHs-+ACI-records+ACI-:+AFsAXQB9-", 400, "not-json", "the body is not JSON: "),
        *(
            Case(
                f"charset {charset}",
                post(_ONE, content_type=f"{JSON}; charset={charset}"),
                415,
                "unsupported-media-type",
                forms,
            )
            for charset in _CHARSETS
        ),
        Case("charset UTF-8 in quotes and capitals", post(_ONE, content_type=f'{JSON};charset="UTF-8"'), 200),
        *(_compressed(coding, body) for coding, body in _CODINGS.items()),
        _compressed("gzip", _BOMB, name="ten megabytes of blanks as gzip"),
        _compressed("gzip", gzip.compress(_BOMB), name="the same twice"),
        _compressed("gzip", b"not gzip", name="gzip that is none"),
        _compressed("gzip", gzip.compress(b"{}\n"), LINES, name="JSON lines as gzip"),
        Case("content coding identity", post(_ONE, headers=b"content-encoding: identity\r\n"), 200),
        Case(
            "gzip and a wrong query",
            post(gzip.compress(_ONE), f"{SCORE}?x=1", headers=b"content-encoding: gzip\r\n"),
            415,
            "unsupported-media-type",
            "expected a body that is not compressed",
        ),
    ]
