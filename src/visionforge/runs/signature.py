"""Files that this user's visionforge wrote, told from those of strangers by a keyed digest.

The key is made once per user and never leaves the user's data folder. What carries its digest was written with it and
has not been changed since; everything else, also a file of one's own from another account, counts as a stranger's.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

KEY_BYTES = 32
DIGEST_BYTES = 16
CONFIGURATION, PROCESSES = "configuration of a run", "processes of a run"  # purposes


def key_file() -> Path:
    """Return where the user's key lies; only the user can read it."""
    return user_data_path("visionforge") / "signature.key"


def sign(content: bytes, purpose: str) -> str | None:
    """Return what proves later that this user wrote a content; None where the user has no folder for a key.

    Args:
        content: The bytes.
        purpose: What they are, so that a signature of one kind of file is none of another.
    """
    key = _key() or _make_key()
    return None if key is None else _digest(key, content, purpose)


def is_signed(content: bytes, signature: object, purpose: str) -> bool:
    """Return whether a content carries this user's signature; see `sign`."""
    key = _key()
    if key is None or not isinstance(signature, str) or not signature.isascii():
        return False
    return hmac.compare_digest(_digest(key, content, purpose), signature)


def canonical_content(content: Mapping[str, Any]) -> bytes:
    """Return what is signed of a file of settings: its values, however they are laid out."""
    return json.dumps(content, sort_keys=True, default=str).encode()


def _digest(key: bytes, content: bytes, purpose: str) -> str:
    return hashlib.blake2b(purpose.encode() + b"\0" + content, key=key, digest_size=DIGEST_BYTES).hexdigest()


def _key() -> bytes | None:
    """Return the key; None if there is none, or somebody else could have put it there."""
    try:
        with key_file().open("rb") as file:
            status = os.fstat(file.fileno())
            key = file.read(KEY_BYTES + 1)
    except OSError:
        return None
    foreign = hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077)
    return key if len(key) == KEY_BYTES and not foreign else None


def _make_key() -> bytes | None:
    """Make the key, or take the one that another process has made in this moment."""
    path = key_file()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename, it never takes the place of a key that is there
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return _key()
