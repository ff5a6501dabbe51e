"""Values that no field takes, and some that look so and are taken."""

from tests.corpus.case import GOOD, Case, records, refused, scored, with_value, wrong_value

_NUMBER, _STRING, _TRUTH = "a number", "a string", "true or false"

# Not JSON: the whole body is refused.
_NO_NUMBERS: dict[str, bytes] = {
    "a plus sign": b"+1",
    "a number that begins with a point": b".5",
    "a number that ends with a point": b"5.",
    "a leading zero": b"01",
    "a leading zero behind a minus sign": b"-01",
    "two zeros": b"00",
    "a hexadecimal number": b"0x1F",
    "an octal number": b"0o17",
    "a binary number": b"0b11",
    "a number without its exponent": b"1E+",
    "an exponent alone": b"e5",
    "an exponent with a point": b"1e1.5",
    "two points": b"1.2.3",
    "two minus signs": b"--1",
    "a minus sign alone": b"-",
    "a minus sign behind": b"1-",
    "a comma for a point": b"1,5",
    "a thousands separator": b"1_000",
    "a blank in a number": b"1 000",
    "a percent sign": b"5%",
    "a unit": b"5bar",
    "a suffix of C": b"5f",
    "a complex number": b"1+2j",
    "a fraction": b"1/2",
    "a number in brackets": b"(5)",
    "a wide digit": "\uff15".encode(),
    "an Arabic digit": "\u0665".encode(),
    "a minus sign of typography": "\u22125".encode(),
}
_CONSTANTS = ("NaN", "Infinity", "-Infinity")
_OTHER_NAMES_OF_CONSTANTS = ("nan", "inf", "-inf", "+Infinity", "INF", "-NaN", "1.#INF")

# JSON, but no number: its record is wrong.
_NOT_NUMBERS: dict[str, tuple[bytes, str]] = {
    "a number beyond any float": (b"1e400", "1e400"),
    "a number below any float": (b"-1e400", "-1e400"),
    "an exponent of ten digits": (b"1e9999999999", "1e9999999999"),
    "400 digits": (b"9" * 400, "9" * 60 + "…"),
    "100,000 digits": (b"9" * 100_000, "9" * 60 + "…"),
    "a number as text": (b'"5.0"', "'5.0'"),
    "an empty text for a number": (b'""', "''"),
    "NaN as text": (b'"NaN"', "'NaN'"),
    "true for a number": (b"true", "true"),
    "false for a number": (b"false", "false"),
    "a list for a number": (b"[5.0]", "[5.0]"),
    "an empty list for a number": (b"[]", "[]"),
    "an object for a number": (b'{"value":5.0}', "{'value': 5.0}"),
    "an object of a database for a number": (b'{"$gt":0}', "{'$gt': 0}"),
    "a long text for a number": (b'"' + b"a" * 500 + b'"', "'" + "a" * 59 + "…"),
}
_NUMBERS: dict[str, bytes] = {
    "a negative zero": b"-0",
    "a negative zero with a point": b"-0.0",
    "zero with an exponent": b"0e5",
    "a capital exponent": b"1E1",
    "a plus sign in an exponent": b"1e+1",
    "the smallest float": b"5e-324",
    "a number too small for a float": b"1e-400",
    "the largest float": b"1.7976931348623157e308",
    "an integer of 64 bits and one more": b"18446744073709551616",
    "an integer of 300 digits": b"1" + b"0" * 299,
    "10,000 decimals": b"5." + b"1" * 10_000,
    "10,000 zeros behind a point": b"0." + b"0" * 10_000 + b"1",
    "null for a number": b"null",
}
_NOT_STRINGS: dict[str, tuple[bytes, str]] = {
    "a number for a category": (b"5", "5"),
    "a float for a category": (b"5.5", "5.5"),
    "a large integer for a category": (b"18446744073709551615", "18446744073709551615"),
    "true for a category": (b"true", "true"),
    "a list for a category": (b'["open"]', "['open']"),
    "an object for a category": (b'{"open":1}', "{'open': 1}"),
    "a number beyond any float for a category": (b"1e400", "1e400"),
}
_STRINGS: dict[str, bytes] = {
    "an empty category": b'""',
    "a category in capitals": b'"OPEN"',
    "a category with a blank": b'"open "',
    "a category with a zero byte": b'"open\\u0000"',
    "a category of 100,000 letters": b'"' + b"a" * 100_000 + b'"',
    "a category in other letters": '"\u043epen"'.encode(),  # the first of the Cyrillic alphabet
    "a category that is not composed": '"ope\u0301n"'.encode(),
    "a category that is composed": '"op\u00e9n"'.encode(),
    "a category of emoji": '"\U0001f600"'.encode(),
    "a category of escaped emoji": b'"\\ud83d\\ude00"',
    "a category written from right to left": '"\u202eopen"'.encode(),
    "a category of a no-character": '"\uffff"'.encode(),
    "a category that is a formula": b'"=1+1"',
    "a category that is a command": b'"\'; DROP TABLE pumps; --"',
    "a category that is a page": b'"<script>alert(1)</script>"',
    "a category of colons and quotes": b'"\\":\\":{\\"rpm\\":1}"',
}
_NOT_TRUTHS: dict[str, tuple[bytes, str]] = {
    "1 for true": (b"1", "1"),
    "0 for false": (b"0", "0"),
    "1.0 for true": (b"1.0", "1.0"),
    "true as text": (b'"true"', "'true'"),
    "yes as text": (b'"yes"', "'yes'"),
    "an empty text for false": (b'""', "''"),
    "an empty list for false": (b"[]", "[]"),
    "an object for true": (b"{}", "{}"),
}


def _of_pressure(name: str, raw: bytes) -> bytes:
    return records(GOOD, with_value("pressure", raw))


def cases() -> list[Case]:
    """All of them."""
    not_json = "the body is not JSON: "
    return [
        *(refused(name, _of_pressure(name, raw), 400, "not-json", not_json) for name, raw in _NO_NUMBERS.items()),
        *(
            refused(
                f"{constant} for a number",
                _of_pressure(constant, constant.encode()),
                400,
                "not-json",
                f"record 1, field 'pressure': expected a number, got {constant}, which is not JSON; "
                "a missing value is null",
            )
            for constant in _CONSTANTS
        ),
        *(
            refused(f"{name} for a number", _of_pressure(name, name.encode()), 400, "not-json", not_json)
            for name in _OTHER_NAMES_OF_CONSTANTS
        ),
        *(wrong_value(name, "pressure", raw, _NUMBER, found) for name, (raw, found) in _NOT_NUMBERS.items()),
        *(wrong_value(name, "valve", raw, _STRING, found) for name, (raw, found) in _NOT_STRINGS.items()),
        *(wrong_value(name, "heated", raw, _TRUTH, found) for name, (raw, found) in _NOT_TRUTHS.items()),
        *(scored(name, records(with_value("pressure", raw))) for name, raw in _NUMBERS.items()),
        *(scored(name, records(with_value("valve", raw))) for name, raw in _STRINGS.items()),
        wrong_value("a list for an id", "serial", b"[1]", "a string, a number, true, false or null", "[1]"),
        wrong_value("an object for an id", "serial", b"{}", "a string, a number, true, false or null", "{}"),
    ]
