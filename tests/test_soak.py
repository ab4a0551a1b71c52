"""A hundred thousand measured steps: memory, handles, threads and files stay few."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import dynoscope
from tests.soak import LOOKS

ROOT = Path(__file__).parents[1]
STEPS = 100_000


@pytest.mark.slow
def test_nothing_piles_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", str(run), str(STEPS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    progress, looks = found["progress"], found["looks"]
    assert progress["measured"] == STEPS
    assert progress["skipped"] == progress["lost"] == progress["lost_rows"] == 0
    # Parts are written now and then, which takes some memory for a moment.
    early, late = looks[2 * LOOKS // 5 : 3 * LOOKS // 5], looks[4 * LOOKS // 5 :]

    def values(name: str, part: list[dict[str, float]]) -> list[float]:
        return [look[name] for look in part]

    rss = [statistics.median(values("rss", part)) for part in (early, late)]
    blocks = [min(values("blocks", part)) for part in (early, late)]
    print(f"memory {rss[1] - rss[0]:+.1f} MB, {blocks[1] - blocks[0]:+.0f} blocks")
    assert rss[1] - rss[0] <= 5.0
    assert blocks[1] - blocks[0] <= 4_000  # one for each ten steps would be a leak
    assert max(look["handles"] for look in late) <= looks[0]["handles"] + 2
    assert {look["threads"] for look in looks} <= {2, 3}  # one more while sealing
    assert max(look["files"] for look in looks) < 80
    assert {look["problems"] for look in looks} == {0}
    rows = dynoscope.open_run(run).layers("update_norm", "0.weight")
    assert rows["step"].tolist() == list(range(STEPS))
