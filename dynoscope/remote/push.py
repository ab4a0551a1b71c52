"""Send a run folder to a store by hand: what an upload has left over."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dynoscope.errors import DynoscopeError, RunExistsError, StoreError
from dynoscope.remote.places import remove_spool
from dynoscope.remote.store import Store
from dynoscope.remote.upload import Upload, local_manifest
from dynoscope.remote.uploader import pause_after
from dynoscope.schema.folder import MANIFEST
from dynoscope.schema.process import is_gone

__all__ = ["push"]

TRIES: Final = 6
"""How often a flaky store is tried in a row."""


def push(
    folder: Path,
    uri: str,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Upload a run that nobody writes; a spool that has arrived is removed.

    Args:
        folder: the run's folder.
        uri: where it goes.
        overwrite: replace another run that is there.
        say: is told of what fails and is tried again.

    Returns:
        The URI, without its password.

    Raises:
        StoreError: it cannot be uploaded; the message says why.
        RunExistsError: something else is there.
        RunNotFoundError: the folder holds no run.
        DynoscopeError: it is being written.
    """
    manifest = local_manifest(folder)
    if manifest["status"] == "running" and not is_gone(manifest):
        raise DynoscopeError(f"{folder} is being written; push it when it is over")
    store = Store(uri)
    is_other = _holds_other(store, float(manifest["created"]))
    if is_other and not overwrite:
        raise RunExistsError(
            f"{store.uri} holds something else; pass another URI, or --overwrite to "
            "replace the run there"
        )
    upload = Upload(folder, store)
    upload.look(replace=is_other)
    for failures in range(1, TRIES + 1):
        try:
            upload.once()
            break
        except StoreError as error:
            if failures == TRIES:
                raise
            say(f"{error}; trying again")
            time.sleep(pause_after(failures, 1.0))
    remove_spool(folder)
    return store.uri


def _holds_other(store: Store, created: float) -> bool:
    """Whether a store holds anything but this run."""
    try:
        return float(json.loads(store.get(MANIFEST))["created"]) != created
    except FileNotFoundError:
        return bool(store.list())
    except (ValueError, KeyError, TypeError):
        return True
