"""Where remote runs are kept: the objects below a URI, and what went wrong in words."""

import contextlib
import copy
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from dynoscope.errors import StoreError
from dynoscope.remote.causes import explained
from dynoscope.schema.folder import TEMPORARY

__all__ = ["Listed", "Store", "is_uri", "joined", "parent", "shown"]

CHUNK: Final = 1 << 20
"""Bytes of a file that are in memory at a time."""

_OPTIONS: Final = {"gs": "retry_limit_seconds=10", "gcs": "retry_limit_seconds=10"}
"""Options of a URI by its scheme, where it has none; a quarter of an hour otherwise."""

_WHOLE: Final = ("s3", "gcs", "abfs")
"""Stores in which an object appears at once, complete, when its stream is closed."""


class Listed(NamedTuple):
    """What a store's listing tells of an object.

    Attributes:
        size: bytes.
        changed: when it was last written, microseconds since 1970.
    """

    size: int
    changed: int


class Store:
    """The objects below a URI, each by its path from there.

    Every method raises a StoreError that names the URI, the cause and the cure, and
    `get` and `fetch` a FileNotFoundError where there is no such object.

    Args:
        uri: any that `pyarrow.fs.FileSystem.from_uri` knows, options included.

    Attributes:
        uri: the URI, without its password.
    """

    def __init__(self, uri: str) -> None:
        self.uri = shown(uri)
        if not urlsplit(uri).netloc + urlsplit(uri).path.strip("/"):
            raise StoreError(f"{uri!r} names no bucket or folder")
        with self._explained():
            system, path = fs.FileSystem.from_uri(_completed(uri))
        self._system = _impatient(system) if system.type_name == "s3" else system
        self._path = path.rstrip("/")

    def below(self, name: str) -> "Store":
        """The objects below a path."""
        store = copy.copy(self)
        store.uri, store._path = joined(self.uri, name), self._at(name)
        return store

    def list(self) -> dict[str, Listed]:
        """All objects; none where there is nothing."""
        selector = fs.FileSelector(self._path, recursive=True)
        with self._explained():
            try:
                found = self._system.get_file_info(selector)
            except FileNotFoundError:
                return {}
        return {
            info.path[len(self._path) + 1 :]: Listed(
                info.size, (info.mtime_ns or 0) // 1000
            )
            for info in found
            if info.type == fs.FileType.File
        }

    def get(self, name: str) -> bytes:
        """The content of an object."""
        with self._explained(), self._system.open_input_stream(self._at(name)) as file:
            content: bytes = file.read()
        return content

    def fetch(self, name: str, target: Path) -> None:
        """Write an object to a file, which is replaced in one go."""
        temporary = target.with_name(target.name + TEMPORARY)
        with self._explained():
            source = self._system.open_input_stream(self._at(name))
        with source, temporary.open("wb") as file:
            while True:
                with self._explained():
                    chunk = source.read(CHUNK)
                if not chunk:
                    break
                file.write(chunk)
        temporary.replace(target)

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object, bytes or the content of a file, in one go.

        Raises:
            FileNotFoundError: there is no such file.
        """
        source = (
            content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
        )
        with source as file, self._explained():
            target = self._at(name)
            if self._system.type_name in _WHOLE:
                self._write(file, target)
                return
            self._system.create_dir(target.rpartition("/")[0], recursive=True)
            self._write(file, target + TEMPORARY)
            self._system.move(target + TEMPORARY, target)

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._explained(), contextlib.suppress(FileNotFoundError):
            self._system.delete_file(self._at(name))

    def _write(self, file: IO[bytes], target: str) -> None:
        with self._system.open_output_stream(target) as stream:
            while chunk := file.read(CHUNK):
                stream.write(chunk)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, StoreError):
            raise
        except (OSError, pa.ArrowException) as error:
            raise explained(self.uri, error) from error


def is_uri(place: object) -> bool:
    """Whether something is a URI and not a local path.

    >>> is_uri("s3://bucket/runs/lion"), is_uri("runs/lion"), is_uri("C:/runs")
    (True, False, False)
    """
    return isinstance(place, str) and bool(re.match(r"[A-Za-z][\w+.-]+://", place))


def joined(uri: str, below: str) -> str:
    """The URI of something below, with the same options.

    >>> joined("s3://bucket/runs/?scheme=http", "lion")
    's3://bucket/runs/lion?scheme=http'
    """
    parts = urlsplit(uri)
    path = "/".join([parts.path.rstrip("/"), quote(below)]) if below else parts.path
    return urlunsplit(parts._replace(path=path.rstrip("/")))


def parent(uri: str) -> str:
    """The URI of what is around, with the same options.

    >>> parent("s3://bucket/runs/lion?scheme=http")
    's3://bucket/runs?scheme=http'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0]))


def shown(uri: str) -> str:
    """A URI as it may be printed and recorded: without its password.

    >>> shown("s3://key:secret@bucket/runs")
    's3://key:***@bucket/runs'
    """
    if "@" not in uri:
        return uri
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    key, colon, _ = user.partition(":")
    hidden = f"{key}{colon}***" if colon else key
    return urlunsplit(parts._replace(netloc=f"{hidden}{at}{host}"))


def _completed(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.query:
        return uri
    return urlunsplit(parts._replace(query=_OPTIONS.get(parts.scheme, "")))


def _impatient(system: Any) -> Any:
    """An S3 file system that gives up soon: a hanging call would hold up the exit.

    We try again ourselves. It also sends a small object in one request in place of
    three, and a large one piece by piece.
    """
    # A URI cannot say all that, so we make it anew, as unpickling does.
    make, (options,) = system.__reduce__()
    return make(
        options
        | {
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=2),
            "allow_delayed_open": True,
            "background_writes": False,
        }
    )
