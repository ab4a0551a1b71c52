"""Where `watch` records: a folder, or a spool that is uploaded to a store."""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from dynoscope.errors import RunExistsError, RunNotFoundError
from dynoscope.remote.download import download
from dynoscope.remote.layout import in_order
from dynoscope.remote.places import new_spool, remove_spool, spools_of
from dynoscope.remote.store import Store, is_uri, parent, shown
from dynoscope.remote.upload import local_manifest
from dynoscope.remote.uploader import Uploader
from dynoscope.schema.folder import MANIFEST
from dynoscope.schema.process import is_gone

__all__ = ["Place", "Remote", "checked_out", "said"]

logger = logging.getLogger("dynoscope")


@dataclasses.dataclass(frozen=True)
class Remote:
    """A remote run, to give to `watch(run=...)`; a bare URI means the defaults.

    Attributes:
        uri: where the run goes: `s3://bucket/runs/lion`, `gs://...`, or any other
            URI that `pyarrow.fs.FileSystem.from_uri` knows, options included.
        interval: seconds between uploads: what is lost if the machine is.
        patience: seconds that the end of the block waits for the last upload.
    """

    uri: str
    interval: float = 4.0
    patience: float = 60.0


class Recording(Protocol):
    """The recorder, as far as uploading goes."""

    def tell(self, **content: Any) -> None:
        """Put something into the manifest."""

    def note(self, problem: str) -> None:
        """Record a problem and say it."""

    def close(self, failure: BaseException | None, skipped: int) -> None:
        """End the recording."""

    @property
    def is_closed(self) -> bool:
        """Whether all that could be written is."""


class Place(Protocol):
    """Where a run is recorded.

    Attributes:
        folder: the folder that is written.
        run: what to call it and to open it by: the folder, or the URI.
        around: the folder or URI that the run is in.
    """

    folder: Path
    run: Path | str
    around: Path | str

    def start(self, recording: Recording) -> None:
        """Begin to upload what is recorded, if it is to be.

        Raises:
            StoreError: that does not work; the recording is closed.
        """

    def finish(self) -> None:
        """Upload what is left, now that the recording is closed; or say where it is."""


class Local:
    """A folder that stays where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Path | str = folder
        self.around: Path | str = folder.parent

    def start(self, recording: Recording) -> None:
        """Nothing is to be done."""

    def finish(self) -> None:
        """Nothing is to be done."""


class Spool:
    """A folder that is uploaded while it is written, and removed when it has arrived.

    Args:
        folder: the folder, alone in one of its own.
        remote: where it goes.
        store: the same.
    """

    def __init__(self, folder: Path, remote: Remote, store: Store) -> None:
        self.folder = folder
        self.run: Path | str = store.uri
        self.around: Path | str = parent(store.uri)
        self._remote, self._store = remote, store
        self._is_over = False
        self._recording: Recording | None = None
        self._uploader: Uploader | None = None

    def start(self, recording: Recording) -> None:
        """Upload the manifest, then go on in the background; see `Place`."""
        interval = self._remote.interval
        uploader = Uploader(self.folder, self._store, interval, recording.note)
        recording.tell(upload=uploader.counts)
        try:
            uploader.start()
        except BaseException as error:
            recording.close(error, 0)
            raise
        self._recording, self._uploader = recording, uploader

    def finish(self) -> None:
        """Upload what is left and remove the folder; or say what to do with it."""
        if self._is_over:
            return
        if self._uploader is None or self._recording is None:
            remove_spool(self.folder)
            return
        if not self._recording.is_closed:
            return  # a forked process's never is; an interrupted one at the exit
        arrived, self._is_over = False, True
        try:
            arrived = self._uploader.finish(self._remote.patience)
        finally:  # also when the user has no patience, and interrupts
            if arrived:
                remove_spool(self.folder)
            else:
                reason = self._uploader.reason or "the last try is not over"
                self._recording.note(
                    f"not all of the run could be uploaded ({reason}); all of it is in "
                    f"{self.folder}. Send it with: "
                    f"dynoscope push {self.folder} '{self._store.uri}'"
                )


def said(run: str | os.PathLike[str] | Remote) -> Path | str:
    """What to call a run that is recorded there, and to open it by."""
    uri = run.uri if isinstance(run, Remote) else run
    return shown(uri) if isinstance(uri, str) and is_uri(uri) else Path(uri)


@contextlib.contextmanager
def checked_out(
    run: str | os.PathLike[str] | Remote, *, resume: bool
) -> Iterator[Place]:
    """The place to record a run in, with what is there already; uploads it at the end.

    Args:
        run: a folder, or where to upload to.
        resume: whether all that is there is needed, and not just its manifest.

    Raises:
        StoreError: the store cannot be read; the message says why.
        RunExistsError: something else is there.
    """
    if isinstance(run, str) and is_uri(run):
        run = Remote(run)
    if not isinstance(run, Remote):
        yield Local(Path(run))
        return
    store = Store(run.uri)
    spool = Spool(_folder_for(store, resume=resume), run, store)
    try:
        yield spool
    finally:
        spool.finish()


def _folder_for(store: Store, *, resume: bool) -> Path:
    there = store.list()
    if there and MANIFEST not in there:
        raise RunExistsError(
            f"{store.uri} is not empty and not a dynoscope run; "
            "nothing there was touched. Pass another run="
        )
    for left, content in _left_over(store.uri):
        if resume and _is_as_far(content, store, there):
            return left
        logger.warning(
            "dynoscope: an earlier run was not uploaded completely; it is in %s. "
            "Remove it, or send it with: dynoscope push %s URI",
            left,
            left,
        )
    folder = new_spool(store.uri)
    try:
        for name in [*(in_order(there) if resume else []), MANIFEST]:
            if name in there:
                download(store, name, there[name], folder)
    except BaseException:
        remove_spool(folder)
        raise
    return folder


def _left_over(uri: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Spools whose process ended before all had arrived, the newest first."""
    for folder in reversed(spools_of(uri)):
        try:
            content = local_manifest(folder)
        except RunNotFoundError:
            continue  # it ended before there was anything
        if content["status"] != "running" or is_gone(content):
            yield folder, content


def _is_as_far(left: Mapping[str, Any], store: Store, there: object) -> bool:
    """Whether a spool has all that the store has of the same run."""
    if not there:
        return True
    content = json.loads(store.get(MANIFEST))
    is_same = left["created"] == content["created"]
    return bool(is_same and left["heartbeat"] >= content["heartbeat"])
