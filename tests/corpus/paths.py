"""Paths, names of models, methods and headers."""

from tests.corpus.case import GOOD, INFER, SCORE, Case, bare, post, records

_ONE = records(GOOD)
_NOTHING = "there is nothing at this path; /openapi.json lists what there is"


def _unknown(shown: str) -> str:
    return f"no model {shown} is served; GET /v1/models lists those that are"


# What stands for the name of a model, and the name as the answer shows it.
_NAMES: dict[str, tuple[str, str]] = {
    "another name": ("pump", "'pump'"),
    "a name in capitals": ("PUMPS", "'PUMPS'"),
    "a name with a blank": ("pumps%20", "'pumps '"),
    "a name with a plus sign": ("pumps+", "'pumps+'"),
    "a name with a zero byte": ("pumps%00", "'pumps\\x00'"),
    "a name with a line break": ("pumps%0d%0aset-cookie:a=b", "'pumps\\r\\nset-cookie:a=b'"),
    "a name that goes up": ("..", "'..'"),
    "a name that goes up, escaped": ("%2e%2e", "'..'"),
    "a name that goes up twice escaped": ("%252e%252e", "'%2e%2e'"),
    "a name that stays": (".", "'.'"),
    "a name with a backslash": ("..%5c..%5cpumps", "'..\\\\..\\\\pumps'"),
    "a name with a version": ("pumps@20260302T081500Z-4f1c", "'pumps@20260302T081500Z-4f1c'"),
    "a name with an alias": ("pumps@live", "'pumps@live'"),
    "a name with a semicolon": ("pumps;v=1", "'pumps;v=1'"),
    "a name in quotes": ("%22pumps%22", "'\"pumps\"'"),
    "a name with a quote": ("pumps'", '"pumps\'"'),
    "a name in braces": ("{name}", "'{name}'"),
    "a name that is a template": ("$%7b7*7%7d", "'${7*7}'"),
    "a name of a star": ("*", "'*'"),
    "a name in Cyrillic": ("%d1%80umps", "'\u0440umps'"),
    "a name of emoji": ("%f0%9f%98%80", "'\U0001f600'"),
    "a name that is not UTF-8": ("%ff", "'\ufffd'"),
    "a name that is half escaped": ("pumps%2", "'pumps%2'"),
    "a name that is escaped by other digits": ("pumps%zz", "'pumps%zz'"),
    "a name of a file": ("aliases.json", "'aliases.json'"),
    "a name of a hidden file": (".git", "'.git'"),
    "a name of 2,000 letters": ("p" * 2_000, "'" + "p" * 59 + "…"),
    "a name of a null": ("null", "'null'"),
    "a name of a prototype": ("__proto__", "'__proto__'"),
    "a name written from right to left": ("%e2%80%aepumps", "'\\u202epumps'"),
}
# No path at all.
_PATHS: dict[str, str] = {
    "no name": "/v1/models//score",
    "a slash behind": f"{SCORE}/",
    "two slashes": "/v1//models/pumps/score",
    "two slashes before": f"/{SCORE}",
    "a name with a slash": "/v1/models/pu/mps/score",
    "a name with an escaped slash": "/v1/models/pumps%2fx/score",
    "steps up": "/v1/models/../../etc/passwd",
    "escaped steps up": "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "steps up and down again": "/v1/models/x/../pumps/score",
    "a file of the bundle": "/v1/models/pumps/score.onnx",
    "the folder of models": "/models/pumps/aliases.json",
    "another version of the interface": "/v3/models/pumps/score",
    "a path in capitals": "/V1/MODELS/pumps/SCORE",
    "the root": "/",
    "an icon": "/favicon.ico",
    "an environment": "/.env",
    "a repository": "/.git/config",
    "a page of an administrator": "/admin",
    "a path of 4,000 letters": "/" + "a" * 4_000,
    "a thousand steps": "/a" * 1_000,
    "only a query": "/?rate=0.1",
    "an escaped question mark": f"{SCORE}%3frate=0.1",
    "a zero byte": "/v1/models/pumps/score%00",
    "a socket": "/ws",
    "the protocol's list of files": "/v2/repository/models/pumps/load",
}
_METHODS = {
    SCORE: ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND", "PURGE"),
    "/v1/models": ("POST", "PUT", "DELETE"),
    "/v1/models/pumps": ("POST", "DELETE", "PATCH"),
    "/healthz/live": ("POST", "DELETE"),
    "/healthz/ready": ("PUT",),
    "/metrics": ("POST", "DELETE"),
    INFER: ("GET", "DELETE"),
    "/v2/models/pumps": ("POST",),
    "/v2/health/ready": ("POST",),
}
_ALLOWED = {SCORE: "POST", INFER: "POST"}
_MEDIA_TYPES = (
    "text/plain",
    "text/json",
    "application/jsonp",
    "application/ld+json",
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/octet-stream",
    "application/x-pickle",
    "application/msgpack",
    "application/json, text/plain",
    "application/json application/json",
    "application / json",
    "application",
    "/",
    "*/*",
    ";",
    "application/json; q=1",
    "application/json; charset",
    "application/json; version=2",
    "application/json" + "; charset=utf-8" * 3 + "; a=b",
    "text/csv; header=absent",
    "text/csv; delimiter=tab",
    "application/vnd.apache.arrow.file",
    "application/vnd.apache.parquet",
    "a" * 3_000,
    "\xe4pplication/json",
)


def _refused_method(path: str, method: str) -> Case:
    allowed = _ALLOWED.get(path, "GET")
    kind = "error" if path.startswith("/v2") else "method-not-allowed"
    request = bare(f"{method} {path} HTTP/1.1".encode())
    detail = "" if method == "HEAD" else f"expected {allowed}, got another method"
    return Case(f"{method} of {path}", request, 405, kind if detail else None, detail)


def cases() -> list[Case]:
    """All of them."""
    forms = (
        "expected Content-Type application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream"
    )
    good = {
        "Accept of an image": b"accept: image/png\r\n",
        "Accept of nothing": b"accept: \r\n",
        "Accept with a weight that is none": b"accept: text/csv;q=x\r\n",
        "Accept with a weight of NaN": b"accept: text/csv;q=nan\r\n",
        "Accept with a negative weight": b"accept: text/csv;q=-1\r\n",
        "Accept of 3,000 commas": b"accept: %b\r\n" % (b"," * 3_000),
        "Accept twice": b"accept: image/png\r\naccept: text/html\r\n",
        "a request id that forges a line": b'x-request-id: a","level":"error\r\n',
        "a request id of 3,000 letters": b"x-request-id: %b\r\n" % (b"a" * 3_000),
        "an empty request id": b"x-request-id: \r\n",
        "a trace that is none": b"traceparent: 00-zz-zz-zz\r\n",
        "a trace of zeros": b"traceparent: 00-%b-%b-00\r\n" % (b"0" * 32, b"0" * 16),
        "a proxy's header": b"x-forwarded-for: 127.0.0.1' OR '1'='1\r\nx-forwarded-proto: javascript\r\n",
        "another host behind a proxy": b'x-forwarded-host: example.org\r\nforwarded: for="_x"\r\n',
        "another method in a header": b"x-http-method-override: DELETE\r\n",
        "another path in a header": b"x-original-url: /admin\r\nx-rewrite-url: /admin\r\n",
        "a range": b"range: bytes=0-0,-1\r\nif-match: *\r\n",
        "a hundred headers": b"".join(b"x-%d: %d\r\n" % (i, i) for i in range(100)),
        "a header of Latin-1": b"x-pump: \xe4\xf6\xfc\r\n",
        "a cookie": b"cookie: %b\r\n" % (b"a=b;" * 500),
        "credentials that are none": b"authorization: Basic !!!\r\n",
        "a binary header length beside JSON": b"inference-header-content-length: -1\r\n",
    }
    return [
        *(
            Case(name, post(_ONE, f"/v1/models/{raw}/score"), 404, "unknown-model", _unknown(shown))
            for name, (raw, shown) in _NAMES.items()
        ),
        *(
            Case(
                f"{name}, described",
                bare(f"GET /v1/models/{raw} HTTP/1.1".encode()),
                404,
                "unknown-model",
                _unknown(shown),
            )
            for name, (raw, shown) in list(_NAMES.items())[:8]
        ),
        *(
            Case(
                f"{name}, its versions",
                bare(f"GET /v1/models/{raw}/versions HTTP/1.1".encode()),
                404,
                "unknown-model",
                _unknown(shown),
            )
            for name, (raw, shown) in list(_NAMES.items())[4:9]
        ),
        *(
            Case(f"{name}, by the protocol", post(b"{}", f"/v2/models/{raw}/infer"), 404, "error", _unknown(shown))
            for name, (raw, shown) in list(_NAMES.items())[:9]
        ),
        *(
            Case(name, post(_ONE, path), 404, "error" if path.startswith("/v2") else "not-found", _NOTHING)
            for name, path in _PATHS.items()
        ),
        *(_refused_method(path, method) for path, methods in _METHODS.items() for method in methods),
        *(
            Case(
                f"Content-Type {media_type[:60]}",
                post(_ONE, content_type=media_type),
                415,
                "unsupported-media-type",
                forms,
            )
            for media_type in _MEDIA_TYPES
        ),
        Case(
            "no Content-Type",
            post(_ONE, content_type=None),
            415,
            "unsupported-media-type",
            f"{forms}, text in UTF-8, got none",
        ),
        Case("an empty Content-Type", post(_ONE, content_type=""), 415, "unsupported-media-type", forms),
        Case(
            "Content-Type twice, both JSON",
            post(_ONE, headers=b"content-type: application/json\r\n"),
            415,
            "unsupported-media-type",
            forms,
        ),
        Case(
            "Content-Type twice",
            post(_ONE, headers=b"content-type: text/csv\r\n"),
            415,
            "unsupported-media-type",
            forms,
        ),
        Case(
            "Content-Encoding twice",
            post(_ONE, headers=b"content-encoding: identity\r\ncontent-encoding: gzip\r\n"),
            415,
            "unsupported-media-type",
            "expected a body that is not compressed, got Content-Encoding 'identity, gzip'",
        ),
        *(Case(name, post(_ONE, headers=header), 200) for name, header in good.items()),
        Case("Content-Type in capitals", post(_ONE, content_type="APPLICATION/JSON"), 200),
        Case("Content-Type with a parameter that is empty", post(_ONE, content_type="application/json;;"), 200),
        Case("a path that is escaped throughout", post(_ONE, "/v1/models/%70%75%6d%70%73/score"), 200),
    ]
