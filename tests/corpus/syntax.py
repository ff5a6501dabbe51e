"""Bodies that are no JSON, and JSON that is no body."""

from tests.corpus.case import GOOD, Case, post, records, refused, scored, with_value

_NOT_JSON = "the body is not JSON: "
_SHAPE = 'expected a JSON object with either "records": [{…}, …] or "columns": {"field": […], …}'
_ONE = records(GOOD)


def _not_json(name: str, body: bytes, detail: str = _NOT_JSON) -> Case:
    return refused(name, body, 400, "not-json", detail)


def _wrong_shape(name: str, body: bytes, detail: str = "") -> Case:
    return refused(name, body, 422, "wrong-body", detail)


_BROKEN: dict[str, bytes] = {
    "an empty body": b"",
    "a body of blanks": b" \t\r\n",
    "an opened object": b"{",
    "an opened list": b"[",
    "an opened string": b'"',
    "a name alone": b'{"records"',
    "a name and a colon": b'{"records":',
    "an opened list of records": b'{"records":[',
    "an opened record": b'{"records":[{',
    "a list without its end": b'{"records":[{}',
    "an object without its end": b'{"records":[{}]',
    "a body cut in the middle": _ONE[: len(_ONE) // 2],
    "a body without its last byte": _ONE[:-1],
    "a comma at the end of a list": b'{"records":[{},]}',
    "a comma at the end of an object": b'{"records":[],}',
    "a comma at the end of a record": records(with_value("rpm", b"1500,")),
    "a comma at the start of a list": b'{"records":[,{}]}',
    "a comma alone": b'{"records":[,]}',
    "two commas": b'{"records":[{},,{}]}',
    "no comma between records": b'{"records":[{} {}]}',
    "no comma between names": b'{"records":[] "columns":{}}',
    "no colon": b'{"records" []}',
    "two colons": b'{"records"::[]}',
    "an equals sign for a colon": b'{"records"=[]}',
    "a semicolon for a comma": b'{"records":[{};{}]}',
    "brackets that do not fit": b'{"records":[{]}}',
    "one bracket too many": b'{"records":[]}]',
    "one brace too many": b'{"records":[]}}',
    "two bodies": b'{"records":[]}{"records":[]}',
    "two bodies on two lines": b'{"records":[]}\n{"records":[]}',
    "words behind the body": b'{"records":[]} thanks',
    "words before the body": b'body: {"records":[]}',
    "single quotes": b"{'records':[]}",
    "a name without quotes": b"{records:[]}",
    "a number as a name": b"{1:[]}",
    "a comment of a line": b'{"records":[] // none\n}',
    "a comment in between": b'{"records":/* none */[]}',
    "a hash comment": b'# none\n{"records":[]}',
    "True of Python": b'{"records":[{"heated":True}]}',
    "None of Python": b'{"records":[{"heated":None}]}',
    "undefined of JavaScript": b'{"records":undefined}',
    "a literal cut short": b'{"records":nul}',
    "a literal with a letter too many": b'{"records":nulll}',
    "a literal in capitals": b'{"records":NULL}',
    "a call around the body": b'score({"records":[]});',
    "a prefix against hijacking": b")]}'\n" + _ONE,
    "a record separator first": b"\x1e" + _ONE,
    "a zero byte": b"\x00",
    "a zero byte behind the body": _ONE + b"\x00",
    "a zero byte between two values": b'{"records":\x00[]}',
    "a form feed as a blank": b'{"records":\x0c[]}',
    "a vertical tab as a blank": b'{"records":\x0b[]}',
    "a no-break space as a blank": '{"records":\u00a0[]}'.encode(),
    "a line separator as a blank": '{"records":\u2028[]}'.encode(),
    "a byte order mark": b"\xef\xbb\xbf" + _ONE,
    "a line break in a string": records(with_value("valve", b'"op\nen"')),
    "a tab in a string": records(with_value("valve", b'"op\ten"')),
    "a zero byte in a string": records(with_value("valve", b'"op\x00en"')),
    "an unknown escape": records(with_value("valve", b'"op\\xen"')),
    "an escape in octal": records(with_value("valve", b'"\\157pen"')),
    "an escape of two digits": records(with_value("valve", b'"\\u6f"')),
    "an escape of other letters": records(with_value("valve", b'"\\u00zz"')),
    "an escape in braces": records(with_value("valve", b'"\\u{6f}pen"')),
    "a backslash at the end": records(with_value("valve", b'"open\\"')),
    "XML": b"<?xml version='1.0'?><records/>",
    "XML with an entity of a file": b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><records>&x;</records>',
    "a web form": b"records=%5B%5D&strict=true",
    "parts of a web form": b'--x\r\ncontent-disposition: form-data; name="records"\r\n\r\n[]\r\n--x--\r\n',
    "YAML": b"records:\n- pressure: 5\n",
    "CSV": b"pressure,valve\n5,open\n",
    "BSON": b"\x16\x00\x00\x00\x04records\x00\x05\x00\x00\x00\x00\x00",
    "an ELF file": b"\x7fELF\x02\x01\x01" + b"\x00" * 57,
    "a template": b"{{7*7}}",
    "a look-up of a logger": b"${jndi:ldap://x/y}",
}

_BINARY: dict[str, bytes] = {
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07records\x94.",
    "MessagePack": b"\x81\xa7records\x90",
    "CBOR": b"\xa1grecords\x80",
    "random bytes": bytes(range(128, 256)),
    "all bytes": bytes(range(256)),
}
_SHAPES: dict[str, bytes] = {
    "null as a body": b"null",
    "true as a body": b"true",
    "a number as a body": b"12",
    "a string as a body": b'"records"',
    "a list as a body": b"[]",
    "a list of records as a body": b"[{}]",
    "an object without a name": b"{}",
    "records that are null": b'{"records":null}',
    "records that are an object": b'{"records":{}}',
    "records that are text": b'{"records":"[]"}',
    "records that are a number": b'{"records":1}',
    "records that are false": b'{"records":false}',
    "records beside columns": b'{"records":[],"columns":{}}',
    "null records beside columns": b'{"records":null,"columns":{"pressure":[1]}}',
    "columns that are null": b'{"columns":null}',
    "columns that are a list": b'{"columns":[]}',
    "a column that is a number": b'{"columns":{"pressure":1}}',
    "a column that is null": b'{"columns":{"pressure":null}}',
    "a column that is an object": b'{"columns":{"pressure":{}}}',
    "another name": b'{"rows":[]}',
    "a further name": b'{"records":[],"model":"pumps"}',
    "a name in capitals": b'{"RECORDS":[]}',
    "a name with a blank": b'{"records ":[]}',
    "a name with a zero byte": b'{"records\\u0000":[]}',
    "a name in other letters": '{"r\u0435\u0441ords":[]}'.encode(),  # of the Cyrillic alphabet
    "a name in wide letters": '{"\uff52ecords":[]}'.encode(),
    "an empty name": b'{"":[]}',
    "a name of a prototype": b'{"__proto__":{"records":[]}}',
}


def cases() -> list[Case]:
    """All of them."""
    twice = "the name 'records' stands several times in one object; expected it once"
    return [
        *(_not_json(name, body) for name, body in _BROKEN.items()),
        *(_not_json(name, body, "the body is not UTF-8") for name, body in _BINARY.items()),
        *(_wrong_shape(name, body) for name, body in _SHAPES.items()),
        _wrong_shape("both names", b'{"records":[],"columns":{"pressure":[]}}', _SHAPE),
        _wrong_shape("neither name", b"{ }", _SHAPE),
        _wrong_shape("records twice", b'{"records":[],"records":[]}', twice),
        _wrong_shape("records twice, once escaped", b'{"records":[],"\\u0072ecords":[]}', twice),
        _wrong_shape("records twice, first good, then none", b'{"records":[{}],"records":[]}', twice),
        _wrong_shape(
            "columns twice",
            b'{"columns":{"pressure":[1]},"columns":{"pressure":[2]}}',
            "the name 'columns' stands several times in one object; expected it once",
        ),
        scored("an escaped name of the body", b'{"r\\u0065cords":[]}'),
        scored("blanks of all four kinds", b' \t\r\n{ "records"\t:\r\n[ ] } '),
        scored("no records", b'{"records":[]}'),
        Case(
            "no body and no length",
            b"POST /v1/models/pumps/score HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"content-type: application/json\r\n\r\n",
            400,
            "not-json",
            _NOT_JSON,
        ),
        Case("a body as gzip that says nothing of it", post(b"\x1f\x8b\x08\x00" + bytes(20)), 400, "not-json", ""),
    ]
