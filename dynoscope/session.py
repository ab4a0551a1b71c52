"""`watch`: wire hooks to a recorder, and undo it."""

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynoscope.errors import RunExistsError, UnwatchableError
from dynoscope.findings import Herald, Judge, OnFinding, Rule, Thresholds
from dynoscope.hooks import Models, Optimizers, Watcher, find_watched, processes_of
from dynoscope.reader import Run, open_run
from dynoscope.recorder import Bystander, Recorder
from dynoscope.schedule import Schedule, as_schedule
from dynoscope.schema import TABLES
from dynoscope.schema.folder import MANIFEST
from dynoscope.scope import Scope

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["watch"]


@contextlib.contextmanager
def watch(
    model: Models,
    optimizer: Optimizers,
    *,
    run: str | os.PathLike[str] | None = None,
    every: int | Schedule = 1,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    neurons: bool = True,
    histograms: bool = False,
    config: Mapping[str, Any] | Any = None,
    resume: bool = False,
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
        run: folder to write; None makes one under `runs/` by date and model.
        every: interval of measured steps, or a function from step to bool.
        include: regular expression(s); only layers whose name one of them finds.
        exclude: regular expression(s); no layer whose name one of them finds.
        neurons: whether norms and angles of single neurons are measured too.
        histograms: whether weights and gradients are sorted into bins too, at
            measured steps that grow apart: 20 for each power of ten.
        config: what you want to know of this run later: a mapping, a dataclass,
            or an `argparse.Namespace`.
        resume: continue the run in that folder, after its last recorded step.
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
        RunExistsError: the folder holds a run already, or something else; processes
            that share a model all raise it.
        ScheduleError: `every` makes no sense.
        FindingError: a rule found an error, and on_finding is "raise".
    """
    schedule = as_schedule(every)
    find = functools.partial(
        find_watched,
        model,
        optimizer,
        include=include,
        exclude=exclude,
        neurons=neurons,
    )
    processes = processes_of(model, process_group)
    watcher = processes.agree(
        lambda: Watcher(find, schedule, histograms=histograms, processes=processes),
        lambda made: (
            made.watched.subject.layers,
            every if isinstance(every, int) else "a schedule",
            histograms,
        ),
    )
    if processes.writes:
        settings = {
            "config": {} if config is None else config,
            "every": every if isinstance(every, int) else repr(every),
        }
        subject = watcher.watched.subject
        judge = Judge(subject, thresholds, rules) if findings else None
        herald = Herald(judge, on_finding, quiet=quiet) if judge else None

        def start(folder: Path) -> Recorder:
            recorder = Recorder(folder, subject, settings, strict=strict, judge=herald)
            recorder.start()  # a folder that cannot be written is said here, as it is
            return recorder

        prepare = functools.partial(
            _prepared, run, subject.model, resume=resume, overwrite=overwrite
        )
        block = _writing(watcher, prepare, start, herald, quiet=quiet)
    else:
        block = _beside(watcher, run, resume=resume, strict=strict)
    with block as scope:
        yield scope


@contextlib.contextmanager
def _writing(
    watcher: Watcher,
    prepare: Callable[[], tuple[Path, int]],
    start: Callable[[Path], Recorder],
    herald: Herald | None,
    *,
    quiet: bool,
) -> Iterator[Scope]:
    """Watch and write; `prepare` gives the folder and the first step."""

    def begin() -> tuple[Path, int, Recorder]:
        folder, step = prepare()
        return folder, step, start(folder)

    folder, step, recorder = watcher.processes.lead(begin, lambda begun: begun[:2])
    watcher.start_at(step)
    failure: BaseException | None = None
    try:
        watcher.attach(recorder, herald.deliver if herald else None)
        yield Scope(folder, watcher, recorder)
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):
            failure = error
        raise
    finally:
        watcher.detach()
        recorder.close(failure, watcher.skipped)
        if not quiet:
            _say_goodbye(folder, recorder, herald)
        # What raised in the block is not to be hidden by what raises here.
        if herald is not None:
            herald.deliver(only_say=failure is not None)


@contextlib.contextmanager
def _beside(
    watcher: Watcher, run: str | os.PathLike[str] | None, *, resume: bool, strict: bool
) -> Iterator[Scope]:
    """Watch on a process that does not write: what its sums need, and the count."""
    processes = watcher.processes
    if processes.sharded:
        folder, step = processes.follow()
    else:
        folder, step = Path("runs" if run is None else run), 0
        if resume and (folder / MANIFEST).exists():
            step = _next_step(open_run(folder))
    watcher.start_at(step)
    bystander = Bystander(processes.rank, strict=strict)
    try:
        watcher.attach(bystander)
        yield Scope(folder, watcher, bystander)
    finally:
        watcher.detach()


def _prepared(
    run: str | os.PathLike[str] | None, model: str, *, resume: bool, overwrite: bool
) -> tuple[Path, int]:
    """The run's folder, ready to be written, and the number of the first step."""
    folder = Path(run) if run is not None else _fresh_folder(model)
    return folder, _prepare(folder, resume=resume, overwrite=overwrite)


def _fresh_folder(model: str) -> Path:
    stem = f"{time.strftime('%Y-%m-%d_%H%M%S')}-{model}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = Path("runs") / f"{stem}{suffix}"
        if not folder.exists():
            return folder
    raise RunExistsError(f"no free name like {stem!r} is left in runs/; pass run=")


def _prepare(folder: Path, *, resume: bool, overwrite: bool) -> int:
    """Make the folder ready; give the number of the first step."""
    if resume and overwrite:
        raise UnwatchableError("resume=True and overwrite=True exclude each other")
    if not (folder / MANIFEST).exists():
        if folder.is_dir() and not any(folder.iterdir()):
            return 0
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise RunExistsError(
                f"{folder} exists and is not a dynoscope run; "
                "nothing in it was touched. Pass another run="
            ) from None
        return 0
    previous = open_run(folder)
    if not (resume or overwrite):
        raise RunExistsError(
            f"{folder} holds a run already ({previous.status}); pass resume=True to "
            "continue it, overwrite=True to replace it, or another run="
        )
    if previous.status == "running":
        raise RunExistsError(f"{folder} is being written by another process right now")
    if resume:
        return _next_step(previous)
    for table in TABLES:
        shutil.rmtree(folder / table, ignore_errors=True)
    (folder / MANIFEST).unlink()
    return 0


def _next_step(run: Run) -> int:
    last = run.last_step
    return 0 if last is None else last + 1


def _say_goodbye(folder: Path, recorder: Recorder, herald: Herald | None) -> None:
    progress = recorder.progress
    gaps = "".join(
        f", {progress[kind]} {kind}"
        for kind in ("skipped", "lost", "overflowed")
        if progress[kind]
    )
    count = herald.found if herald is not None else 0
    findings = f"\n  {count} findings: dynoscope findings {folder}" if count else ""
    print(
        f"dynoscope: {progress['measured']} steps measured{gaps}, in {folder}; "
        f"look with: dynoscope dash {folder.parent}{findings}"
    )
