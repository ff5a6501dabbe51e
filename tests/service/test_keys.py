import re
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


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the file of keys: Input data was truncated"),
    "no JSON": (b"{]", "the file of keys: JSON is malformed"),
    "no UTF-8": (b'{"format":1,"keys":[{"id":"\xff"}]}', "the file of keys: "),
    "too deep": (b"[" * 100_000, "the file of keys: "),
    "a list": (b"[]", "the file of keys: Expected `object`, got `array`"),
    "another format": (written(version=2), "the file of keys: expected format 1, got 2"),
    "an unknown name": (b'{"format":1,"keys":[],"more":1}', "the file of keys: Object contains unknown field …"),
    "an id": (written(entry(id="x")), "key 0: id: expected 12 hexadecimal digits"),
    "a digest that is too short": (written(entry(sha256="ab" * 31)), "key 0: sha256: expected 64 hexadecimal digits"),
    "a digest that is none": (written(entry(sha256="xy" * 32)), "key 0: sha256: expected 64 hexadecimal digits"),
    "no scope": (
        written(entry(scopes=[])),
        "key 0: scopes: expected one or more of score, read, admin, each once, got []",
    ),
    "a scope twice": (written(entry(scopes=["read", "read"])), "key 0: scopes: expected one or more"),
    "an unknown scope": (written(entry(scopes=["all"])), "key 0: Invalid enum value … - at `$.scopes[0]`"),
    "a time without a zone": (written(entry(expires="2026-03-02T08:15:00")), "key 0: expires: expected a time like"),
    "no time": (
        written(entry(created="soon")),
        "key 0: created: expected a time like 2026-03-02T08:15:00Z",
    ),
    "a name with a control character": (written(entry(name="a\x1b")), "key 0: name: expected at most 64 letters"),
    "a name left out": (b'{"format":1,"keys":[{"id":"0123456789ab"}]}', "key 0: Object missing required field"),
    "an id twice": (written(entry(), entry()), "key 1: its id is another's too"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_as_it_is_written_here_is_refused(case: str) -> None:
    text, detail = WRONG[case]
    with pytest.raises(KeysError) as caught:
        parse_keys(text)
    assert detail in str(caught.value)


def test_every_problem_of_a_file_is_listed() -> None:
    with pytest.raises(KeysError) as caught:
        parse_keys(written(entry(id="x", created="soon"), 7, entry(scopes=[])))
    assert [line.split(":")[1:3] for line in str(caught.value).splitlines()] == [
        [" key 0", " id"],
        [" key 0", " created"],
        [" key 1", " Expected `object`, got `int`"],
        [" key 2", " scopes"],
    ]


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
    "make", [Path.mkdir, lambda path: path.write_bytes(b" " * (2**20 + 1))], ids=["folder", "huge"]
)
def test_what_is_no_file_of_keys_is_not_read(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "keys.json")
    with pytest.raises(KeysError, match="the file of keys"):
        read_keys(tmp_path / "keys.json")
