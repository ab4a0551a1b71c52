"""What is watched from a step on that was not before, in words."""

from dynoscope.hooks.subject import Watched

__all__ = ["in_words"]


def in_words(before: Watched, after: Watched, step: int) -> str:
    """Say what has changed between what was watched before a step, and from it on."""
    was, now = (w.subject.optimizer.reasons for w in (before, after))
    if [*map(id, before.parameters)] == [*map(id, after.parameters)] and was != now:
        why = "; ".join({reason: None for reason in now if reason})
        return f"only measured from step {step} on, without predictions: {why}"
    old, new = ({x.name for x in w.subject.layers} for w in (before, after))
    changes = [
        f"{what} {', '.join(sorted(names)[:5])}"
        for what, names in (("new:", new - old), ("gone:", old - new))
        if names
    ]
    return (
        f"the optimizer's parameters changed before step {step} "
        f"({'; '.join(changes) or 'replaced under the same names'}); "
        "predictions that follow the run start anew there"
    )
