"""The text of keys: made, checked, hashed. No I/O."""

import stat
import zlib

import pytest
from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_gateway.keys.pepper import load_pepper
from hunmin_gateway.keys.text import BASE62, checksum, digest, is_well_formed, new_key, visible_prefix
from hypothesis import given
from hypothesis import strategies as st


def test_a_new_key_is_well_formed_and_like_no_other():
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(is_well_formed(key) and len(key) == 42 for key in keys)


def test_the_checksum_is_crc32_in_base62():
    assert zlib.crc32(b"hm_0") == 2216896948
    number = 0
    for character in "2Q1sAO":
        number = number * 62 + BASE62.index(character)
    assert number == 2216896948
    assert checksum("hm_0") == "2Q1sAO"


@given(position=st.integers(3, 41), replacement=st.sampled_from(BASE62))
def test_any_single_mistyped_character_is_noticed(position, replacement):
    key = new_key()
    typo = key[:position] + replacement + key[position + 1 :]
    assert is_well_formed(typo) == (typo == key)


@pytest.mark.parametrize("text", ["", "hm_", "sk-abc", "hm_" + "a" * 32 + "_" + "0" * 6, "가" * 42])
def test_what_is_no_key_is_not_well_formed(text):
    assert not is_well_formed(text)


def test_a_key_with_something_around_it_is_not_well_formed():
    key = new_key()
    assert not any(map(is_well_formed, [key + "\n", " " + key, key[:-1], key.replace("hm_", "hm-", 1)]))


def test_the_digest_depends_on_key_and_pepper():
    key, other = new_key(), new_key()
    digests = {digest(key, pepper=b"a" * 32), digest(key, pepper=b"b" * 32), digest(other, pepper=b"a" * 32)}
    assert len(digests) == 3
    assert all(len(value) == 32 for value in digests)


def test_the_visible_prefix_shows_six_random_characters():
    key = new_key()
    assert key.startswith(visible_prefix(key))
    assert len(visible_prefix(key)) == 9


class TestPepper:
    def test_is_made_once_for_the_owner_alone(self, tmp_path):
        path = tmp_path / "gateway" / "key_pepper"
        first = load_pepper(path, configured=None, keys_exist=False)
        assert load_pepper(path, configured=None, keys_exist=True) == first
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(first) >= 32
        assert [file.name for file in path.parent.iterdir()] == ["key_pepper"]

    def test_from_the_settings_writes_no_file(self, tmp_path):
        assert load_pepper(tmp_path / "key_pepper", configured="x" * 32, keys_exist=True) == b"x" * 32
        assert not list(tmp_path.iterdir())

    def test_lost_while_keys_exist_is_refused(self, tmp_path):
        with pytest.raises(HunminError, match="HUNMIN_GATEWAY_KEY_PEPPER") as refusal:
            load_pepper(tmp_path / "key_pepper", configured=None, keys_exist=True)
        assert refusal.value.code is ErrorCode.CONFLICT

    def test_that_cannot_be_written_names_the_way_out(self, tmp_path):
        (tmp_path / "home").write_text("a file, not a folder")
        with pytest.raises(HunminError, match="HUNMIN_HOME") as refusal:
            load_pepper(tmp_path / "home" / "gateway" / "key_pepper", configured=None, keys_exist=False)
        assert refusal.value.code is ErrorCode.UNAVAILABLE
