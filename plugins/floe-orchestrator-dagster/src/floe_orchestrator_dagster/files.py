"""Reads and writes whole files, with errors that name a remedy."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from floe_orchestrator_dagster.errors import ProductError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_YAML_BYTES = 64 * 2**20
LOCK_TIMEOUT_SECONDS = 900


def read_bytes(path: Path, limit: int, remedy: str) -> bytes:
    """Return the content of a file of at most `limit` bytes; errors end with `remedy`."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise ProductError(
                f"Cannot read {path}: it has {size:,} bytes, and the limit is {limit:,}. {remedy}"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ProductError(f"Cannot find {path}. {remedy}") from error
    except OSError as error:
        raise ProductError(f"Cannot read {path}: {error.strerror}. {remedy}") from error


def read_text(path: Path, limit: int, remedy: str) -> str:
    """Return the content of a UTF-8 file of at most `limit` bytes; errors end with `remedy`."""
    try:
        return read_bytes(path, limit, remedy).decode()
    except UnicodeDecodeError as error:
        raise ProductError(
            f"Cannot read {path}: not UTF-8 at byte {error.start}. {remedy}"
        ) from error


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Return the mapping in a YAML file; errors end with `remedy`."""
    text = read_text(path, MAX_YAML_BYTES, remedy)
    try:
        content = _load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ProductError(f"Cannot read {path}: not YAML{where}. {remedy}") from error
    except RecursionError as error:
        raise ProductError(f"Cannot read {path}: nested too deeply. {remedy}") from error
    except (ValueError, OverflowError) as error:
        # For example a date that does not exist.
        raise ProductError(f"Cannot read {path}: {error}. {remedy}") from error
    if not isinstance(content, dict):
        raise ProductError(f"Cannot read {path}: it is not a mapping. {remedy}")
    return content


def _load_yaml(text: str) -> Any:
    # The loader of libyaml is ten times as fast, but not every build of PyYAML has it.
    fast = getattr(yaml, "CSafeLoader", None)
    if fast is not None:
        with suppress(yaml.YAMLError):
            return yaml.load(text, Loader=fast)  # noqa: S506  a safe loader
    # The loader in Python reports the place of an error more precisely.
    return yaml.safe_load(text)


def writable_dir(preferred: Path) -> Path:
    """Return `preferred` if it is writable, else a private directory in its place."""
    try:
        preferred.mkdir(parents=True, exist_ok=True)
    except OSError:
        return private_dir("target", str(preferred))
    return preferred if os.access(preferred, os.W_OK) else private_dir("target", str(preferred))


def private_dir(kind: str, key: str) -> Path:
    """Return a directory that only this user can read (0700), one per `key`.

    Raises:
        ProductError: another user owns the directory, or it cannot be created.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:20]
    base = Path(tempfile.gettempdir()) / f"floe-dagster-{os.getuid()}"
    for path in (base, base / kind, base / kind / digest):
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            status = path.lstat()
        except OSError as error:
            raise ProductError(
                f"Cannot create private directory {path}: {error.strerror}."
            ) from error
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise ProductError(
                f"Cannot use {path}: it is not a directory that belongs to you. "
                "Set TMPDIR to a directory that does."
            )
        if stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
            path.chmod(0o700)
    return path


def write_atomically(
    path: Path, content: str | bytes | bytearray, mode: int = 0o644, *, durable: bool = True
) -> None:
    """Write the whole file or nothing. A power cut may damage a file that is not `durable`.

    Raises:
        ProductError: the file cannot be written. No partial file remains.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ProductError(f"Cannot write {path}: {error.strerror}.") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock against other processes that use this function."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=LOCK_TIMEOUT_SECONDS):
            yield
    except Timeout as error:
        raise ProductError(
            f"Waited {LOCK_TIMEOUT_SECONDS} s for another process to prepare the project (lock "
            f"{path}). If no other process is running, remove that file."
        ) from error


@contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Mark a directory as in use; the mark ends with this process, even if it is killed."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_in_use(directory: Path) -> bool:
    """Return whether any process has marked a directory as in use."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def mtime(path: Path) -> float:
    """Return the time when a file was last written; 0.0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
