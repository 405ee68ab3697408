"""A signature proves that this user wrote a content, and nothing else does."""

from visionforge.runs.signature import CONFIGURATION, PROCESSES, canonical_content, is_signed, key_file, sign


def test_only_the_same_content_purpose_and_key_fit():
    content = canonical_content({"b": 1.5, "a": [True, None]})
    assert content == canonical_content({"a": [True, None], "b": 1.5})
    signature = sign(content, CONFIGURATION)
    assert is_signed(content, signature, CONFIGURATION)
    assert not is_signed(content + b" ", signature, CONFIGURATION)
    assert not is_signed(content, signature, PROCESSES)
    for wrong in (None, 7, "", "ä", signature[:-1], "0" * 32):
        assert not is_signed(content, wrong, CONFIGURATION)
    key_file().unlink()
    assert not is_signed(content, signature, CONFIGURATION)
    assert sign(content, CONFIGURATION) != signature  # of a new key


def test_the_key_is_the_users_alone():
    signature = sign(b"x", CONFIGURATION)
    assert key_file().stat().st_mode & 0o777 == 0o600
    assert list(key_file().parent.iterdir()) == [key_file()]
    key_file().chmod(0o644)  # somebody may have read it
    assert not is_signed(b"x", signature, CONFIGURATION)
    assert sign(b"x", CONFIGURATION) is None


def test_without_a_folder_nothing_is_signed(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert sign(b"x", CONFIGURATION) is None
    assert not is_signed(b"x", "0" * 32, CONFIGURATION)
