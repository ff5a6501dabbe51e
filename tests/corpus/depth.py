"""JSON that is nested deeply, wherever it can be."""

from tests.corpus.case import INFER, LINES, SCORE, Case, post, records, refused, with_value

_DEPTHS = (1_000, 10_000, 100_000)
_DEEP = "the body is nested too deeply to be records"


def _of_lists(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _of_objects(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def _cases(depth: int) -> list[Case]:
    of, lists, objects = f"{depth:,} deep", _of_lists(depth), _of_objects(depth)
    bodies = {
        "lists as a body": lists,
        "objects as a body": objects,
        "lists that do not end": b"[" * depth,
        "objects that do not end": b'{"a":' * depth,
        "lists as records": b'{"records":' + lists + b"}",
        "objects as records": b'{"records":' + objects + b"}",
        "lists as a record": records(lists),
        "objects as a record": records(objects),
        "lists as a number": records(with_value("pressure", lists)),
        "objects as a category": records(with_value("valve", objects)),
        "lists that are not scored": records(with_value("failed", lists)),
        "lists as columns": b'{"columns":' + lists + b"}",
        "lists in a column": b'{"columns":{"valve":[' + lists + b"]}}",
        "lists under a name that there is not": b'{"rows":' + lists + b"}",
    }
    flat = "record 0: expected a flat JSON object, got one nested too deeply"  # a line is a record, the body goes on
    return [
        *(refused(f"{name}, {of}", body, 400, "not-json", _DEEP) for name, body in bodies.items()),
        Case(f"a line of lists, {of}", post(lists + b"\n", content_type=LINES), 200, None, flat),
        Case(f"a line of objects, {of}", post(objects, content_type=LINES), 200, None, "record 0"),
        Case(
            f"a tensor of lists, {of}",
            post(b'{"inputs":[{"name":"rpm","shape":[1],"datatype":"FP64","data":' + lists + b"}]}", INFER),
            400,
            "error",
            "the request is nested too deeply",
        ),
    ]


def cases() -> list[Case]:
    """All of them."""
    below = b'{"records":[' + _of_lists(100) + b"]}"
    return [
        *(case for depth in _DEPTHS for case in _cases(depth)),
        Case(
            "a record of lists, 100 deep",
            post(below, f"{SCORE}?strict=true"),
            422,
            "wrong-records",
            "record 0: expected a JSON object, got [[[[",
        ),
    ]
