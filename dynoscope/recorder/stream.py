"""A growing file of record batches, whole up to its last one whatever fails."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

__all__ = ["Stream"]

END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What ends an Arrow IPC stream. One without it is read all the same."""


class Stream:
    """An Arrow IPC stream on disk.

    What `append` was given has reached the operating system when it returns; what
    made it raise has left nothing behind, so that it may simply be called again.

    Args:
        path: a file that does not exist yet.
        schema: of the batches.

    Attributes:
        path: the file.
        size: bytes of it that are whole.

    Raises:
        OSError: it cannot be written; there is no such file then.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.size = path, 0
        # Not buffered: nothing waits in this process, or twice in a forked one.
        self._file = path.open("xb", buffering=0)
        try:
            self.append(schema.serialize())
        except BaseException:
            self._file.close()
            with contextlib.suppress(OSError):  # the first error is the one to tell
                path.unlink()
            raise

    def append(self, message: Any) -> None:
        """Add a batch, in the bytes that `RecordBatch.serialize` gives.

        Raises:
            OSError: it cannot be written, or not all of it.
        """
        rest = whole = memoryview(message)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.seek(self.size)
            with contextlib.suppress(OSError):  # the next one overwrites it, too
                self._file.truncate()
            raise
        self.size += whole.nbytes

    def read(self) -> Iterator[pa.RecordBatch]:
        """All batches, one in memory at a time; for after `close`."""
        # Not mapped to memory, where a bad disk would end the process.
        with pa.OSFile(str(self.path)) as file, pa.ipc.open_stream(file) as batches:
            yield from batches

    def is_deleted(self) -> bool:
        """Whether the file is gone, so that what is appended would be lost."""
        return not os.path.lexists(self.path)

    def close(self) -> None:
        """End the stream; after this only `path` and `read` are of use."""
        with contextlib.suppress(OSError):  # it is whole without the mark
            self.append(END)
        with contextlib.suppress(OSError):  # it is closed, whatever it says
            self._file.close()
