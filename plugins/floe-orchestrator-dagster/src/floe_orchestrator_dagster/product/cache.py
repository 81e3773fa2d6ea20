"""Remembers values that were computed from files, by the files' content.

A remembered value is only a shortcut. If it is missing, damaged, of another version or from other
content, it is computed again. Values are data (msgpack, decoded into typed structures), so a
forged file can at worst contain wrong values, but no code.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.errors import ProductError
from floe_orchestrator_dagster.files import mtime, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Several, because users switch between states of a product, such as two branches of a project.
KEPT = 4
_DIGEST_BYTES = 32
# The meaning of the bytes depends on the code that wrote them.
_VERSIONS = f"{version('floe-orchestrator-dagster')} {version('msgspec')} {sys.version_info[:2]}"


def digest_of(parts: Iterable[bytes | str]) -> str:
    """Return a digest of contents; it depends on where each ends."""
    digest = hashlib.blake2b(_VERSIONS.encode(), digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def content_of(value: Any) -> bytes:
    """Return a plan's value as bytes, for a digest."""
    return _encoder.encode(value)


def remembered(folder: Path, kind: type[T], key: str, make: Callable[[], T]) -> T:
    """Return the value remembered in `folder` under `key`, else the result of `make`.

    `key` is a digest of everything that the value depends on; see `digest_of`.
    """
    path = folder / f"{kind.__name__}-{key}.msgpack"
    with suppress(OSError, ValueError, TypeError, msgspec.MsgspecError):
        return _read(path, kind)
    value = make()
    try:
        _write(path, value)
    except (ProductError, OSError, TypeError, ValueError) as error:
        logger.debug("Not remembered in %s: %s", path, error)
    return value


def _read(path: Path, kind: type[T]) -> T:
    # Views, because a plan of 10,000 models has 19 MB.
    content = memoryview(path.read_bytes())
    data = content[_DIGEST_BYTES:]
    if _digest(data) != content[:_DIGEST_BYTES]:
        raise ValueError("damaged")
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_decode)


def _write(path: Path, value: Any) -> None:
    content = bytearray(_DIGEST_BYTES)
    _encoder.encode_into(value, content, _DIGEST_BYTES)
    content[:_DIGEST_BYTES] = _digest(memoryview(content)[_DIGEST_BYTES:])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Not durable, because the digest detects a file that a crash left half-written.
    write_atomically(path, content, mode=0o600, durable=False)
    older = path.parent.glob(f"{path.name.partition('-')[0]}-*.msgpack")
    for old in sorted(older, key=mtime, reverse=True)[KEPT:]:
        old.unlink(missing_ok=True)


def _digest(data: memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _encode(value: Any) -> Any:
    if isinstance(value, PluginConfig):
        return value.model_dump(mode="json")
    raise NotImplementedError(type(value))


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode)


def _decode(kind: type[Any], value: Any) -> Any:
    if kind is PluginConfig:
        return PluginConfig.model_validate(value)
    raise NotImplementedError(kind)
