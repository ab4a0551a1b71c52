"""Go on with a run: leave what still holds, and say what that is."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.measurement import Subject
from dynoscope.reader import Run
from dynoscope.recorder.past import Past
from dynoscope.resume.agreement import check_model, is_same_optimizer
from dynoscope.resume.branch import branch_off
from dynoscope.resume.recorded import recorded_rows
from dynoscope.resume.start import first_step

__all__ = ["go_on"]


def go_on(
    run: Run, subject: Subject, *, start_step: int | None, taken: int | None
) -> Past:
    """Prepare a run for new steps: those that it holds of them move into a branch.

    Args:
        run: the run; nobody writes to it.
        subject: what is watched from now on.
        start_step: number of the next step, None if the user does not say.
        taken: steps that the optimizer has counted; 0 or None if it does not know.

    Raises:
        RunExistsError: the run is of another model.
        UnwatchableError: the optimizer was saved before the run began.
    """
    manifest = run.manifest
    check_model(run.path, manifest, subject)
    step, notes = first_step(
        manifest, run.last_step, start_step=start_step, taken=taken
    )
    branch = branch_off(run.folder, step)
    changes = [at for at in manifest.get("changes", []) if at < step]
    if not is_same_optimizer(manifest, subject):
        old, new = manifest["optimizer"]["name"], subject.optimizer.name
        notes.append(
            f"from step {step} on by {new}, until then by {old}, or in other groups: "
            "predictions that follow the run start anew there"
        )
        changes.append(step)
    groups = run.table("groups", ["step", "group", "own_step"])
    steps = np.unique(groups["step"].to_numpy())
    said = run.findings()
    return Past(
        manifest=manifest,
        step=step,
        own_steps=_own_steps(groups, subject, step),
        branch=branch,
        measured=len(steps),
        last_step=int(steps[-1]) if len(steps) else None,
        changes=changes,
        notes=notes,
        said=list(zip(said["rule"], said["layer"], strict=True)),
        rows=recorded_rows(run.folder, since=changes[-1] if changes else 0),
    )


def _own_steps(groups: pa.Table, subject: Subject, step: int) -> tuple[int, ...]:
    """Per optimizer, the number of its next own step.

    Of several, one that did not step in every round is taken to have stepped as often
    as before in those that were not measured.
    """
    parts = list(subject.parts())
    if len(parts) == 1:
        return (step,)
    found = []
    for part in parts:
        rows = groups.filter(pc.equal(groups["group"], part.groups.start))
        if len(rows):
            last, own = (rows[name][-1].as_py() + 1 for name in ("step", "own_step"))
            found.append(own + round((step - last) * own / last))
        else:
            found.append(0)
    return tuple(found)
