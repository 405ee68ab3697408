"""Passwords, tokens and keys, left out of whatever is written or printed: addresses, arguments, settings, messages.

Nothing here finds every secret. It knows the places where addresses and settings usually hold one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus

from visionforge.reading import UnreadableError, read_yaml_text

HIDDEN = "…"
# words of a name that make it that of a secret
_WORDS = {"password", "passwd", "pwd", "passphrase", "token", "secret", "apikey", "sig", "signature"}
_WORDS |= {"auth", "authorization", "credential", "credentials"}
_ENDS = ("password", "passwd", "passphrase", "token", "secret", "apikey", "accesskey", "secretkey")  # sslpassword
_KEYS = {"api", "access", "secret", "private", "account", "auth", "encryption", "signing", "shared", "subscription"}
_OPEN = ("true", "false", "null", "")  # values that are no secrets
_NAMES_OF_DATA = ("class_weights",)  # settings whose keys are names of classes, which may be any words
_REFERENCE = re.compile(r"\$(\{[A-Za-z_][\w.]*(:[\w.]+)?\}|[A-Za-z_]\w*)")  # $NAME, ${NAME}, ${oc.env:NAME}
_WEB = ("http", "https", "ftp", "ftps")  # whose user may be a token
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_PAIR = re.compile(r"""([\w.-]+)(["']?\s?[=:]\s?["']?)([^\s"',;&)}\]]+)""")  # name=value, name: value, "name": "value"
_AROUND = "'\"`<>()[]{},;:."  # marks that end an address in a sentence


def is_secret_name(name: str) -> bool:
    """Return whether a name is that of a secret, such as ``api_key``, ``X-Amz-Signature`` or ``dbPassword``."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    if words == ["key"] or _WORDS.intersection(words) or any(word.endswith(_ENDS) for word in words):
        return True
    return any(two == "key" and one in _KEYS for one, two in pairwise(words))


def is_reference(text: str) -> bool:
    """Return whether a text names an environment variable instead of holding the secret itself."""
    return _REFERENCE.fullmatch(text) is not None


def redact_url(url: str) -> str:
    """Return an address without its secrets: user information, and values of its query and fragment.

    The user of a database is no secret and stays; that of a web address may be a token and does not. Everything else
    is as it was written.

    >>> redact_url("postgresql://me:pw@host/db?sslpassword=x&sslmode=require")
    'postgresql://me:…@host/db?sslpassword=…&sslmode=require'
    >>> redact_url("https://token@host/file.pth?token=abc#sha256=12")
    'https://…@host/file.pth?token=…#sha256=12'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    user, rest = _split_user(scheme, rest)
    base, hash_mark, fragment = rest.partition("#")
    path, question, query = base.partition("?")
    shown = [scheme, separator, f"{_hide_user(scheme, user)}@" if user else "", path]
    return "".join([*shown, question, _hide_values(query), hash_mark, _hide_values(fragment)])


def _split_user(scheme: str, rest: str) -> tuple[str, str]:
    """Return user information, and what follows its @; a password may hold any mark, also @, / and #."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = authority.rfind("@")
    if end < 0 and ":" in authority and not authority.startswith("["):  # [::1] is an address
        port = authority.partition(":")[2]
        if not port.isdigit() or (not _is_web(scheme) and "@" in rest.partition("?")[0]):
            end = rest.rfind("@")
    return (rest[:end], rest[end + 1 :]) if end > 0 else ("", rest)


def _is_web(scheme: str) -> bool:
    return scheme.lower().rpartition("+")[2] in _WEB


def _hide_user(scheme: str, user: str) -> str:
    name, colon, password = user.partition(":")
    if is_reference(user) or (colon and is_reference(password) and not _is_web(scheme)):
        return user
    if _is_web(scheme):
        return HIDDEN
    return f"{name}:{HIDDEN}" if colon else name


def _hide_values(query: str) -> str:
    """Return a query in which the values of secret names, and of lists of settings that have one, are left out."""
    parts = re.split(r"([&;])", query)
    for place, part in enumerate(parts):
        name, equals, value = part.partition("=")
        inner = re.split(r"[;&]", unquote_plus(value)) if "%" in value else []
        secret = is_secret_name(unquote_plus(name)) or any(
            is_secret_name(item.partition("=")[0]) and "=" in item for item in inner
        )
        if equals and value and secret and not is_reference(value):
            parts[place] = f"{name}={HIDDEN}"
        elif "://" in unquote_plus(value):
            clean = redact_url(unquote_plus(value))
            parts[place] = part if clean == unquote_plus(value) else f"{name}={clean}"
    return "".join(parts)


def redact_text(text: str) -> str:
    """Return a message in which addresses, and values of names such as ``password=``, have no secrets."""
    if "://" in text:
        text = _ADDRESS.sub(_redact_address, text)
    return _PAIR.sub(_redact_pair, text) if _mentions_secret(text) else text


def _redact_address(match: re.Match[str]) -> str:
    core = match[0].rstrip(_AROUND)
    return redact_url(core) + match[0][len(core) :]


def _redact_pair(match: re.Match[str]) -> str:
    name, between, value = match.groups()
    bare = name.lstrip("-").rpartition(".")[2]
    known = bare != "key" and is_secret_name(bare) and ("=" in between or '"' in between or "'" in between)
    return f"{name}{between}{HIDDEN}" if known and value not in _OPEN and not is_reference(value) else match[0]


def _mentions_secret(text: str) -> bool:
    small = text.lower()
    return any(word in small for word in ("pass", "pwd", "token", "secret", "key", "sig", "auth", "cred"))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line without the values of secret flags, and without the secrets in other values."""
    result: list[str] = []
    secret = False  # the next argument is the value of a secret flag
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-").rstrip("+").rpartition(".")[2]
        if secret and not argument.startswith("--"):
            result.append(_hide(argument))
            secret = False
        elif equals and re.fullmatch(r"[\w.+-]+", flag):
            result.append(f"{flag}={_hide(value) if is_secret_name(name) else _redact_value(value)}")
            secret = False
        else:
            result.append(_redact_value(argument))
            secret = argument.startswith("-") and is_secret_name(name)
    return result


def _redact_value(value: str) -> str:
    """Return the value of a flag: a mapping or a list, an address, or other text."""
    if value[:1] in ("{", "["):
        try:
            tree = read_yaml_text(value)
        except UnreadableError:
            return redact_text(value)
        clean = redact_settings(tree)
        return value if clean == tree else json.dumps(clean, ensure_ascii=False)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value) and value.count("://") == 1:
        return redact_url(value)  # with the spaces that it may have
    return redact_text(value)


def _hide(value: str) -> str:
    return value if value in _OPEN or is_reference(value) else HIDDEN


def redact_settings(tree: Any) -> Any:
    """Return settings in which values of secret names, and secrets in addresses, are left out.

    References to environment variables, booleans and null stay, and so does everything else. What is redacted already
    does not change.

    Args:
        tree: Nested mappings, lists and values.
    """
    if isinstance(tree, Mapping):
        return {key: _redact_item(str(key), value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [redact_settings(item) for item in tree]
    return _redact_value(tree) if isinstance(tree, str) and "://" in tree else tree


def _redact_item(name: str, value: Any) -> Any:
    if name in _NAMES_OF_DATA:
        return value
    if not is_secret_name(name):
        return redact_settings(value)
    if isinstance(value, Mapping):
        return {key: _redact_item(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_item(name, item) for item in value]
    return value if value is None or isinstance(value, bool) else _hide(str(value))


def hidden_settings(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of settings whose value was left out."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from hidden_settings(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from hidden_settings(item, prefix)
    elif isinstance(tree, str) and (tree == HIDDEN or ("://" in tree and HIDDEN in tree)):
        yield prefix
