"""Modules that the user names, whose backbones, data sets and metrics are then known by name."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from visionforge.config.problems import nearest
from visionforge.errors import SettingsError

MARK = "#blake2b="  # what follows it in a stored configuration is the digest of the content
_DIGITS = 12


def import_modules(names: Sequence[str]) -> list[str]:
    """Import modules, and return their names with the digest of what they contain, as a configuration stores them.

    A module that is imported already is not run again.

    Args:
        names: Names of modules, also of such in the working folder, or paths of Python files; a digest may follow.

    Raises:
        SettingsError: With a line for each that cannot be imported, or is not what the digest says.
    """
    found, problems = [], []
    for text in names:
        name, _, wanted = text.partition(MARK)
        try:
            module = _load(name)
        except Exception as error:  # it may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            problems.append(f"imports: {name}: cannot be imported ({reason}){_hint(name)}")
            continue
        digest = content_digest(module)
        if wanted and digest != wanted:
            problems.append(
                f"imports: {name}: its content has the digest {digest}, the configuration asks for {wanted}; take back "
                "the change, or begin a new run"
            )
        found.append(f"{name}{MARK}{digest}")
    if problems:
        raise SettingsError(problems)
    return found


def _load(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return _from_folder(name)
    path = Path(name).expanduser().absolute()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or not path.is_file():
        reason = f"a module named {path.stem} is imported already" if path.is_file() else f"{name} does not exist"
        raise ImportError(reason)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # class paths such as my_module.MyCallback find it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _from_folder(name: str) -> ModuleType:
    """Import a module by name; the working folder is looked at last, as it is not where installed programs look."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def content_digest(module: ModuleType) -> str:
    """Return 12 hexadecimal digits for the source of a module, or of all modules of a package."""
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    file = Path(module.__file__) if module.__file__ else None
    if file is None:
        return digest.hexdigest()
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    for path in files:
        digest.update(path.relative_to(file.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _hint(name: str) -> str:
    here = [path.name for path in Path.cwd().glob("*.py")]
    close = nearest(Path(name).stem, here)
    return f"; in the working folder: {', '.join(close)}" if close else ""
