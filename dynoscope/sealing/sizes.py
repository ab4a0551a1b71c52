"""How large the files of a table are, as far as sealing is concerned."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dynoscope.schema.folder import TableFile, current_files
from dynoscope.sealing.plan import Sized

__all__ = ["Sizes"]


class Sizes:
    """Looks into each file of a table once.

    Args:
        folder: the table's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parquet: dict[str, int | None] = {}
        self._left: set[str] = set()

    def leave(self, file: TableFile) -> None:
        """Leave a file alone from now on: it cannot be read whole."""
        self._left.add(file.name)

    def files(self) -> list[Sized]:
        """The files that count.

        Raises:
            FileNotFoundError: one has just been replaced.
        """
        if not self._folder.is_dir():
            return []
        files = current_files(path.name for path in self._folder.iterdir())
        return [Sized(file, self._size(file)) for file in files]

    def settled(self) -> list[Sized]:
        """Those of a run that goes on which nobody writes: not the last journal."""
        files = self.files()
        return files[:-1] if files and not files[-1].file.is_part else files

    def _size(self, file: TableFile) -> int | None:
        path = self._folder / file.name
        if file.name in self._left:
            return None
        if not file.is_part:
            return path.stat().st_size
        if file.name not in self._parquet:
            self._parquet[file.name] = _uncompressed(path)
        return self._parquet[file.name]


def _uncompressed(path: Path) -> int | None:
    """Bytes of a Parquet file before compression; None if it is damaged."""
    try:
        metadata = pq.read_metadata(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        return None
    groups = range(metadata.num_row_groups)
    return sum(int(metadata.row_group(n).total_byte_size) for n in groups)
