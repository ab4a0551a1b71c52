"""`watch`: wire hooks to a recorder, and undo it."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dynoscope.blind import unwatched
from dynoscope.ending import Ending
from dynoscope.errors import DynoscopeError
from dynoscope.findings import Herald, Judge, OnFinding, Rule, Thresholds
from dynoscope.hooks import (
    Models,
    Optimizers,
    Turns,
    Watcher,
    find_watched,
    own_count,
    processes_of,
)
from dynoscope.recorder import Bystander, Past, Recorder
from dynoscope.remote import Place, Remote, checked_out, said
from dynoscope.resume import (
    checked_start,
    existing,
    first_step,
    fresh_folder,
    go_on,
    prepared,
)
from dynoscope.schedule import Schedule, as_schedule
from dynoscope.scope import Scope
from dynoscope.sealing import Sealer

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["watch"]

Where: TypeAlias = str | os.PathLike[str] | Remote | None
_Stand: TypeAlias = tuple[int, Sequence[int]]
"""Number of the next step, and of each optimizer's own (none: as many)."""


@contextlib.contextmanager
def watch(
    model: Models,
    optimizer: Optimizers,
    *,
    run: Where = None,
    every: int | Schedule | None = None,
    budget: float = 0.01,
    turns: int = 1,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    neurons: bool = True,
    histograms: bool = False,
    config: Mapping[str, Any] | Any = None,
    resume: bool = False,
    start_step: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    quiet: bool = False,
    findings: bool = True,
    thresholds: Thresholds | None = None,
    rules: Mapping[str, Rule] | None = None,
    on_finding: OnFinding = None,
    process_group: "ProcessGroup | None" = None,
) -> Iterator[Scope]:
    """Measure how an optimizer moves a model's weights, for the length of a block.

    The training is not changed by it: weights, optimizer state and random
    numbers are bit for bit those of the same block without it. An error of
    dynoscope's own is reported once and ends the measuring, not the training.

    Gradients are those that the optimizer receives: accumulated and clipped, what a
    GradScaler multiplied them by undone; with a closure, those of its first evaluation
    in the step. Steps that the scaler calls off, since gradients overflowed, are
    counted as `overflowed` in the run's progress and not measured. Between measured
    steps so far apart that the scale can have grown it may be more than are counted.
    Its scale is logged as `dynoscope/loss_scale`. Steps that a CUDA graph replays run
    no hooks, and are not seen; the run says so.

    Where several processes train the model, all of them open the block, and the first
    one writes. Replicas (DDP) exchange nothing for it. Of a model that is sharded
    (`fully_shard`, tensor parallelism) each measures its shards; at measured steps,
    which then depend on nothing but the step, the sums are completed by two
    collectives.

    Args:
        model: the model that is trained; several in a sequence or a mapping, whose
            indices or keys their layers' names begin with.
        optimizer: the optimizer that is stepped, or several. Steps are then counted
            in rounds, in which each optimizer steps once at most.
        run: folder to write, or URI to upload to, such as `s3://bucket/runs/lion`, or
            a `dynoscope.Remote`; None makes a folder under `runs/` by date and model.
        every: interval of measured steps, or a function from step to bool. None
            leaves it to the budget.
        budget: share of the training's time that measuring may take, of the thread
            that trains (or the accelerator, if that takes longer) and of those that
            write. The first hundred steps are measured whatever they cost, and so is
            every step at which a learning rate has changed by more than a tenth.
        turns: how many turns the layers take: 4 measures a fourth of them, by bytes, at
            each measured step. That takes a fourth of the time and of the memory (a
            copy of the weights that are measured), and each layer has rows at every
            fourth measured step. Rows of modules take each layer as it was at its last
            turn.
        include: regular expression(s); only layers whose name one of them finds.
        exclude: regular expression(s); no layer whose name one of them finds.
        neurons: whether norms and angles of single neurons are measured too.
        histograms: whether weights and gradients are sorted into bins too, at
            measured steps that grow apart: 20 for each power of ten.
        config: what you want to know of this run later: a mapping, a dataclass,
            or an `argparse.Namespace`.
        resume: continue the run in that folder, from where the training stands; what
            the run holds of later steps moves into a branch, `run.branches`. Where
            there is no run yet, a new one begins.
        start_step: number of the next optimizer step, which `scope.step` was when the
            checkpoint was saved. None asks the optimizer for its own count; one that
            keeps none, as SGD and Lion, goes on after the last recorded step.
        overwrite: replace the run in that folder.
        strict: raise dynoscope's own errors instead of going on without it.
        quiet: do not say what was found, nor at the end where the run is.
        findings: whether rules look for what is odd (`dynoscope.findings`).
        thresholds: from where on they speak up.
        rules: the rules to ask, by name; None for all that are registered.
        on_finding: called with each `Finding` after one of the next steps, or at the
            end of the block, on the training's thread; what it raises ends the
            training. "raise" raises a FindingError for one of severity `error`. It is
            the writing process that finds.
        process_group: the processes that train this model; None for all.

    Yields:
        A `Scope`, to log numbers.

    Raises:
        UnwatchableError: there is nothing to watch; the message says why.
        RunExistsError: the folder holds a run already, or one of another model that
            cannot be resumed, or something else; processes that share a model all
            raise it.
        StoreError: the URI cannot be written; the message says why.
        ScheduleError: `every`, the budget, or the turns make no sense.
        FindingError: a rule found an error, and on_finding is "raise".
    """
    schedule, start_step = as_schedule(every, budget), checked_start(start_step)
    pace = _pace(every, budget, turns)
    find = functools.partial(
        find_watched,
        model,
        optimizer,
        include=include,
        exclude=exclude,
        neurons=neurons,
    )
    make = functools.partial(
        Watcher, find, schedule, histograms=histograms, turns=Turns(turns, every)
    )
    settings = {"config": {} if config is None else config, **pace}

    def begin() -> contextlib.AbstractContextManager[Scope]:
        processes = processes_of(model, process_group)
        watcher = processes.agree(
            lambda: make(processes=processes),
            lambda made: (
                made.watched.subject.layers,
                "a schedule" if callable(every) else pace,
                histograms,
            ),
        )
        if not processes.writes:
            return _beside(watcher, run, start_step, resume=resume, strict=strict)
        herald = None
        if findings:
            judge = Judge(watcher.watched.subject, thresholds, rules)
            herald = Herald(judge, on_finding, quiet=quiet, strict=strict)
        where = fresh_folder(watcher.watched.subject.model) if run is None else run
        prepare = functools.partial(
            _prepared, watcher, start_step, resume=resume, overwrite=overwrite
        )
        start = functools.partial(_started, watcher, settings, herald, strict)
        lodging = checked_out(where, resume=resume)
        return _writing(watcher, lodging, prepare, start, herald, quiet=quiet)

    with contextlib.ExitStack() as stack:
        try:
            scope = stack.enter_context(begin())
        except Exception as error:
            if strict or isinstance(error, DynoscopeError | OSError):
                raise
            blind = stack.enter_context(unwatched(optimizer, error))
            scope = Scope(said(run or "runs"), blind, blind)
        yield scope


def _pace(every: int | Schedule | None, budget: float, turns: int) -> dict[str, Any]:
    """What the run says of which steps are measured."""
    return {
        "every": every if every is None or isinstance(every, int) else repr(every),
        "budget": budget if every is None else None,
        "turns": turns,
    }


@contextlib.contextmanager
def _writing(
    watcher: Watcher,
    lodging: contextlib.AbstractContextManager[Place],
    prepare: Callable[[Place], tuple[Past | None, _Stand]],
    start: Callable[[Path, Past | None, int], Recorder],
    herald: Herald | None,
    *,
    quiet: bool,
) -> Iterator[Scope]:
    """Watch and write; `prepare` makes the place ready, and says where we stand."""

    def begin() -> tuple[Place, _Stand, Recorder]:
        place = stack.enter_context(lodging)
        past, stand = prepare(place)
        recorder = start(place.folder, past, stand[0])
        place.start(recorder)
        return place, stand, recorder

    with contextlib.ExitStack() as stack:
        place, stand, recorder = watcher.processes.lead(
            begin, lambda begun: (begun[0].run, begun[1])
        )
        watcher.start_at(*stand)
        with Ending(place, watcher, recorder, herald, quiet=quiet):
            watcher.attach(recorder, herald)
            yield Scope(place.run, watcher, recorder)


def _started(
    watcher: Watcher,
    settings: dict[str, Any],
    herald: Herald | None,
    strict: bool,
    folder: Path,
    past: Past | None,
    step: int,
) -> Recorder:
    """A recorder at work."""
    subject = watcher.watched.subject
    recorder = Recorder(
        folder,
        subject,
        settings,
        strict=strict,
        judge=herald,
        past=past,
        sealer=Sealer(folder),
    )
    if herald is not None and past is not None:
        herald.know(past.said)
    recorder.mark(step, own_count(watcher.watched))
    recorder.start()  # a folder that cannot be written is said here, as it is
    return recorder


@contextlib.contextmanager
def _beside(
    watcher: Watcher,
    run: Where,
    start_step: int | None,
    *,
    resume: bool,
    strict: bool,
) -> Iterator[Scope]:
    """Watch on a process that does not write: what its sums need, and the count."""
    processes = watcher.processes
    if processes.sharded:
        place, stand = processes.follow()
    else:
        place, stand = said(run or "runs"), (start_step or 0, ())
        left = existing(place) if resume else None
        if left is not None:
            taken = own_count(watcher.watched)
            # It is the same before and after the writing process has gone on with it.
            start = first_step(
                left.manifest, left.last_step, start_step=start_step, taken=taken
            )
            stand = start.step, ()
    watcher.start_at(*stand)
    bystander = Bystander(processes.rank, strict=strict)
    try:
        watcher.attach(bystander)
        yield Scope(place, watcher, bystander)
    finally:
        watcher.detach()


def _prepared(
    watcher: Watcher,
    start_step: int | None,
    place: Place,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[Past | None, _Stand]:
    """What there is to go on with in a place, now ready, and the first step."""
    left = prepared(place, resume=resume, overwrite=overwrite)
    if left is None:
        return None, (start_step or 0, ())
    subject, taken = watcher.watched.subject, own_count(watcher.watched)
    past = go_on(left, subject, start_step=start_step, taken=taken)
    return past, (past.step, past.own_steps)
