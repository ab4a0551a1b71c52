"""How a watch ends: once, however its block is left, or if it never is."""

import atexit
import contextlib
from types import TracebackType
from typing import Final

from dynoscope.findings import Herald
from dynoscope.hooks import Unstepped, Watcher, own_count
from dynoscope.recorder import Recorder
from dynoscope.remote import Place

__all__ = ["Ending"]

TELLING: Final = 60.0
"""Seconds of watching from which on its share of the time says something."""


class Ending:
    """The block of a watch: at its end hooks go, the run is closed, and is named.

    In a forked process it does nothing, since the run is its parent's.

    Args:
        place: where the run is recorded.
        watcher: measures.
        recorder: writes.
        herald: brings findings, if anything looks for them.
        quiet: say nothing of the run.

    Raises:
        Exception: at the end, an error of dynoscope's own if the recorder is strict,
            or what a finding raises.
    """

    def __init__(
        self,
        place: Place,
        watcher: Watcher,
        recorder: Recorder,
        herald: Herald | None,
        *,
        quiet: bool,
    ) -> None:
        self._place, self._quiet = place, quiet
        self._watcher, self._recorder, self._herald = watcher, recorder, herald
        self._unstepped = Unstepped(watcher.watched)
        atexit.register(self._at_exit)

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the watch; an error of the block's is its failure, and passes."""
        is_clean_exit = isinstance(error, SystemExit) and not error.code
        if isinstance(error, GeneratorExit):
            if not self._recorder.is_closing:  # by the end of the program
                self._recorder.note(
                    "the watch was closed, or collected since nothing held on to it, "
                    "before its block was left: `with dynoscope.watch(...) as scope:`"
                )
            error = None
        self._end(None if is_clean_exit else error)

    def _end(self, failure: BaseException | None) -> None:
        if self._recorder.is_away or self._recorder.is_closed:
            return
        try:
            self._watcher.detach()
            if failure is None:
                for part in self._watcher.unstepped:
                    self._recorder.note(self._unstepped.explain(part))
        finally:
            self._mark(failure)
            self._close(failure)
        self._place.finish()
        if not self._quiet and self._recorder.is_closed:
            self._say_goodbye()
        # What raised in the block is not to be hidden by what raises here.
        if self._herald is not None:
            self._herald.deliver(only_say=failure is not None)

    def _mark(self, failure: BaseException | None) -> None:
        """Note where the optimizer's count of steps stands, unless training broke."""
        taken = None
        try:
            if failure is None:
                taken = own_count(self._watcher.watched)
        except Exception as error:
            self._recorder.note(
                "the optimizer's count of steps cannot be read, so that resuming needs "
                f"start_step= ({type(error).__name__}: {error})"
            )
        self._recorder.mark(self._watcher.step, taken)

    def _close(self, failure: BaseException | None) -> None:
        try:
            self._recorder.close(failure, self._watcher.skipped)
        finally:
            # Where a second Ctrl-C ends the waiting, the end of the program waits.
            if self._recorder.is_closed:
                atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if not self._recorder.is_closing:
            self._recorder.note("the program ended inside the watch block")
        self._end(None)

    def _say_goodbye(self) -> None:
        place, progress = self._place, self._recorder.progress
        gaps = "".join(
            f", {progress[kind]} {kind.replace('_', ' ')}"
            for kind in ("skipped", "lost", "lost_rows", "overflowed")
            if progress[kind]
        )
        cost, share = self._recorder.cost, ""
        if cost.share is not None and cost.elapsed >= TELLING:
            share = f", for {cost.share:.1%} of the time"
        count = self._herald.found if self._herald is not None else 0
        findings = (
            f"\n  {count} findings: dynoscope findings {place.run}" if count else ""
        )
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more
            print(
                f"dynoscope: {progress['measured']} steps measured{gaps}{share}, in "
                f"{place.run}; look with: dynoscope dash {place.around}{findings}"
            )
