import json
import subprocess
import sys
from pathlib import Path

from dynoscope.diff import diff


def dynoscope(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from dynoscope.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_text(a: Path, b: Path) -> None:
    done = dynoscope("diff", str(a), str(b))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Layers that differ most" in done.stdout
    assert "\x1b" not in done.stdout


def test_json(a: Path, b: Path) -> None:
    done = dynoscope("diff", str(a), str(b), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["summary"] == diff(a, b).summary


def test_errors_are_one_line(a: Path, tmp_path: Path) -> None:
    done = dynoscope("diff", str(a), str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("dynoscope: ")
    assert "does not exist" in line


def test_html(a: Path, b: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = dynoscope("diff", str(a), str(b), "--json", "--html", str(page))
    assert done.returncode == 0
    assert done.stderr == f"dynoscope: wrote {page}\n"
    json.loads(done.stdout)
    assert "adamw against lion" in page.read_text(encoding="utf-8")


def test_html_that_cannot_be_written(a: Path, b: Path, tmp_path: Path) -> None:
    page = tmp_path / "nowhere" / "page.html"
    done = dynoscope("diff", str(a), str(b), "--html", str(page))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
