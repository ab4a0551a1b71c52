"""How a run stands, by its manifest alone: a line in a list of runs."""

import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dynoscope.reader.run import Run

__all__ = ["Standing", "standing_of"]

LOST: Final = (
    "Its process is gone and did not say how it ended (killed, or out of memory): all "
    "that reached the disk is shown."
)


@dataclasses.dataclass(frozen=True)
class Standing:
    """What a list of runs shows of one.

    Attributes:
        status: see `Run.status`.
        exception: text of the exception that ended it, "" if none did.
        problems: what went wrong besides training, in sentences.
        model: class name of the model.
        parameters: how many elements are watched.
        layers: how many parameter tensors these are.
        optimizer: class name of the optimizer.
        step: newest step, None before the first.
        measured: steps that are recorded.
        skipped: measurements given up since too much waited to be written.
        lost: measured steps that could not be recorded.
        created: when it began, seconds since 1970.
        updated: when it ended, or was heard of last.
    """

    status: str
    exception: str
    problems: tuple[str, ...]
    model: str
    parameters: int
    layers: int
    optimizer: str
    step: int | None
    measured: int
    skipped: int
    lost: int
    created: float
    updated: float


def standing_of(run: "Run") -> Standing:
    """How a run stands now; no table is read."""
    status, manifest = run.status, run.manifest
    problems = list(manifest["problems"])
    if run.staleness:
        problems.append(run.staleness)
    if status == "lost":
        problems.append(LOST)
    progress = manifest["progress"]
    return Standing(
        status=status,
        exception=manifest["exception"] or "",
        problems=tuple(problems),
        model=manifest["model"]["name"],
        parameters=manifest["model"]["parameters"],
        layers=len(manifest["layers"]),
        optimizer=manifest["optimizer"]["name"],
        step=progress["step"],
        measured=progress["measured"],
        skipped=progress["skipped"],
        lost=progress["lost"],
        created=float(manifest["created"]),
        updated=float(manifest["ended"] or manifest["heartbeat"]),
    )
