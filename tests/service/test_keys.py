import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from service.keys import Key, KeysError, digest_of, id_of, new_key, parse_keys, read_keys, write_keys

NOW = datetime(2026, 3, 2, 8, 15, tzinfo=UTC)


def test_a_key_has_256_random_bits_and_names_its_id() -> None:
    text, key = new_key(["score"], "", NOW, None)
    assert re.fullmatch(r"nelbo_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text)  # 43 digits of 6 bits
    assert id_of(text.encode()).decode() == key.id
    assert len({new_key(["score"], "", NOW, None)[0] for _ in range(100)}) == 100


def test_the_file_holds_the_sha_256_of_a_key_and_no_part_of_its_secret(tmp_path: Path) -> None:
    text, key = new_key(["score", "read"], "scale 3", NOW, NOW)
    write_keys(tmp_path / "keys.json", [key])
    written = (tmp_path / "keys.json").read_text()
    assert digest_of(text.encode()).hex() in written
    secret = text.split("_", 2)[2]
    assert not any(secret[i : i + 6] in written for i in range(len(secret) - 5))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    keys = [new_key(["score"], "a", NOW, None)[1], new_key(["admin"], "b", NOW, NOW)[1]]
    write_keys(tmp_path / "keys.json", keys)
    assert read_keys(tmp_path / "keys.json") == keys
    assert list(tmp_path.iterdir()) == [tmp_path / "keys.json"]


def test_the_file_is_for_its_owner_alone_unless_its_owner_said_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, [])
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    write_keys(file, [])
    assert file.stat().st_mode & 0o777 == 0o640


def entry(**changed: object) -> dict[str, object]:
    key = Key("0123456789ab", "", "ab" * 32, ("score",), "2026-03-02T08:15:00Z", None)
    return {**msgspec.to_builtins(key), **changed}


def written(*keys: object, version: object = 1) -> bytes:
    return msgspec.json.encode({"format": version, "keys": keys})


TIME = "expected a time like 2026-03-02T08:15:00Z"
NAMES = "expected no name but id, name, sha256, scopes, created, expires"
WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the file of keys: expected JSON, got none from line 1, column 1 on"),
    "no JSON": (b'{"format": 1,\n ]', "the file of keys: expected JSON, got none from line 2, column 2 on"),
    "no UTF-8": (b'{"format":1,"keys":[{"id":"\xff"}]}', "the file of keys: expected UTF-8, got none from byte 27 on"),
    "too deep": (b"[" * 100_000, "the file of keys: expected JSON, got too deep a nesting"),
    "a list": (b"[1]", "the file of keys: expected an object with format, keys, got a list"),
    "another format": (written(version=2), "the file of keys: format: expected 1, got 2"),
    "keys by their ids": (
        b'{"format":1,"keys":{"x":1}}',
        "the file of keys: keys: expected a list of keys, got an object",
    ),
    "an unknown name": (
        b'{"format":1,"keys":[],"more":1}',
        "the file of keys: expected no name but format, keys, got also 'more'",
    ),
    "an id": (written(entry(id="x")), "key 0: id: expected 12 hexadecimal digits, got a text of 1 characters"),
    "a digest that is too short": (
        written(entry(sha256="ab" * 31)),
        "key 0: sha256: expected 64 hexadecimal digits, got a text of 62 characters",
    ),
    "a digest that is none": (written(entry(sha256="xy" * 32)), "key 0: sha256: expected 64 hexadecimal digits, got a"),
    "a digest that is a number": (
        written(entry(sha256=1234)),
        "key 0: sha256: expected 64 hexadecimal digits, got a number",
    ),
    "no scope": (
        written(entry(scopes=[])),
        "key 0: scopes: expected one or more of score, read, admin, each once, got an empty list",
    ),
    "a scope twice": (written(entry(scopes=["read", "read"])), "admin, each once, got 'read', 'read'"),
    "unknown scopes": (written(entry(scopes=["all", "read", 7])), "admin, each once, got 'all', 'read', 7"),
    "many scopes": (written(entry(scopes=["all"] * 1000)), "admin, each once, got 'all', 'all', 'all', 'all', …"),
    "a scope alone": (written(entry(scopes="read")), "admin, each once, got 'read'"),
    "a time without a zone": (
        written(entry(expires="2026-03-02T08:15:00")),
        f"key 0: expires: {TIME}, or null, got '2026-03-02T08:15:00'",
    ),
    "no time": (written(entry(created="soon")), f"key 0: created: {TIME}, got 'soon'"),
    "a time that never is": (written(entry(created=None)), f"key 0: created: {TIME}, got null"),
    "a text that is too long for a time": (
        written(entry(created="s" * 33)),
        f"key 0: created: {TIME}, got a text of 33 characters",
    ),
    "a name with a control character": (written(entry(name="a\x1b")), "key 0: name: expected at most 64 letters"),
    "a misspelt name": (written({**entry(), "scope": ["read"]}), f"key 0: {NAMES}, got also 'scope'"),
    "an id twice": (written(entry(), entry()), "key 1: its id is another's too"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_as_it_is_written_here_is_refused(case: str) -> None:
    text, detail = WRONG[case]
    with pytest.raises(KeysError) as caught:
        parse_keys(text)
    assert detail in str(caught.value)


def test_every_problem_of_a_file_is_listed() -> None:
    wrong = [{"id": "x", "scopes": ["all"], "more": 1}, 7, entry(created="soon", expires="never")]
    with pytest.raises(KeysError) as caught:
        parse_keys(msgspec.json.encode({"format": 2, "keys": wrong, "more": 1}))
    assert [line.removeprefix("the file of keys: ") for line in str(caught.value).splitlines()] == [
        "format: expected 1, got 2",
        "expected no name but format, keys, got also 'more'",
        "key 0: id: expected 12 hexadecimal digits, got a text of 1 characters",
        "key 0: name: expected at most 64 letters, digits, spaces and _.:@/+-, got nothing",
        "key 0: sha256: expected 64 hexadecimal digits, got nothing",
        "key 0: scopes: expected one or more of score, read, admin, each once, got 'all'",
        f"key 0: created: {TIME}, got nothing",
        f"key 0: expires: {TIME}, or null, got nothing",
        f"key 0: {NAMES}, got also 'more'",
        "key 1: expected an object with id, name, sha256, scopes, created, expires, got a number",
        f"key 2: created: {TIME}, got 'soon'",
        f"key 2: expires: {TIME}, or null, got 'never'",
    ]


@pytest.mark.parametrize("what", ["secret", "digest"])
def test_a_secret_or_digest_without_its_key_is_not_repeated_wherever_it_stands(what: str) -> None:
    text, key = new_key(["score"], "", NOW, None)
    planted = text.split("_", 2)[2] if what == "secret" else key.sha256
    places: list[dict[str, object]] = [{name: planted} for name in entry()]
    places += [{"scopes": [planted]}, {planted: 1}]
    for changed in places:
        with pytest.raises(KeysError) as caught:
            # A digest in its place, and a text that a name may be, are wrong for what stands beside them.
            parse_keys(written(entry(**changed), version=2))
        assert planted[:8] not in str(caught.value)


@pytest.mark.parametrize("quote", ["", "'", '"', "`"])
def test_a_key_in_the_wrong_place_of_a_file_is_not_repeated(quote: str) -> None:
    planted = f"{quote}nelbo_{quote}0123456789ab_secret"
    places: list[dict[str, object]] = [{name: planted} for name in entry()]
    places += [{"scopes": [planted]}, {planted: 1}]
    wrong = [written(entry(**changed)) for changed in places]
    wrong += [msgspec.json.encode({"format": 1, "keys": [], planted: 1}), written(version=planted), written(planted)]
    said = []
    for text in wrong:
        try:
            parse_keys(text)
        except KeysError as error:
            said.append(str(error))
    assert len(said) >= len(wrong) - 1  # a name may be any such text
    assert [text for text in said if "secret" in text] == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Path.mkdir, "expected a file, got a folder"),
        (os.mkfifo, "expected a file, got a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a file, got a device"),
        (lambda path: path.write_bytes(b" " * (2**20 + 1)), "expected at most 1048576 bytes, got more"),
    ],
    ids=["folder", "pipe", "device", "huge"],
)
def test_what_is_no_file_of_keys_is_refused_without_waiting(
    make: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    make(tmp_path / "keys.json")
    with pytest.raises(KeysError) as caught:
        read_keys(tmp_path / "keys.json")
    assert str(caught.value) == f"the file of keys cannot be read: {said}"


def test_a_link_to_a_file_of_keys_is_followed(tmp_path: Path) -> None:
    write_keys(tmp_path / "..data", [])
    (tmp_path / "keys.json").symlink_to("..data")
    assert read_keys(tmp_path / "keys.json") == []
