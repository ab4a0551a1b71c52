import subprocess
import sys
from pathlib import Path

ADAMW = "adamw --shape 256,128 --lr 3e-3 --weight-decay 0.1 --steps 2000".split()


def predict(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dynoscope", "predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "80", "PYTHONPATH": ":".join(sys.path)},
    )


def test_says_where_it_settles_and_the_way_there() -> None:
    done = predict(*ADAMW, "--warmup", "100", "--schedule", "cosine")
    assert (done.returncode, done.stderr) == (0, "")
    assert "half-life (steps)" in done.stdout
    assert "1155" in done.stdout
    assert "1999" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_says_what_to_use_instead() -> None:
    done = predict(*ADAMW, "--to", "lion", "--to-betas", "0.9,0.99")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.0006923" in done.stdout


def test_warns_of_a_training_too_short_to_settle() -> None:
    assert "will not settle" in predict(*ADAMW, "--steps", "500").stdout
    without = predict(*ADAMW, "--weight-decay", "0").stdout
    assert "no equilibrium" in without
    assert "will not settle" not in predict(*ADAMW).stdout


def test_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = predict(*ADAMW, "--batch-factor", "2", "--html", str(page))
    assert done.stderr == f"dynoscope: wrote {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "Weight norm" in text
    assert "adamw, equilibrium" in text


def test_errors_are_one_line() -> None:
    for arguments, said in (
        ((*ADAMW, "--betas", "a,b"), "--betas takes numbers"),
        ((*ADAMW, "--lr", "20"), "below 1"),
        ((*ADAMW, "--to", "adam"), "no theory for optimizer 'adam'"),
        ((*ADAMW, "--to", "lion", "--keep", "angle"), "keep is 'angle'"),
    ):
        done = predict(*arguments)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("dynoscope: ")
        assert said in line
