"""The README shows the results as they are."""

from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.bars import Bar
from tests.benchmarks.figures import Figure, keep, load, once
from tests.benchmarks.options import RESULTS, Options
from tests.benchmarks.table import BEGIN, END, README, put, section


def _options(results: Path) -> Options:
    return Options(results=results, quick=False, threads=2, began=0.0, load=0.25)


def test_the_readme_shows_the_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert BEGIN + section(RESULTS) + END in text


def test_results_name_no_host_and_no_folder() -> None:
    for facts in machine.load(RESULTS).values():
        for value in map(str, facts.values()):
            assert not value.startswith("/")
            assert Path.home().name not in value.split()


def test_figures_come_back_as_they_were_kept(tmp_path: Path) -> None:
    figures = [
        Figure("a, b", "wall ratio", 1.0474, 1.0312, 1.0625, 30, ""),
        Figure("a, c", "wall ratio", 1.0474, 1.0312, 1.0625, 30, "", 0.0042),
        once("a", "open", 0.25, "ms"),
    ]
    keep("startup", figures, _options(tmp_path))
    assert load(tmp_path, "startup") == figures
    assert machine.load(tmp_path)["startup"]["load_at_start"] == 0.25
    assert load(tmp_path, "overhead") == []


def test_a_bar_that_is_missed_is_said(tmp_path: Path) -> None:
    figures = [
        Figure("import dynoscope", "start", 20.0, 19.0, 21.0, 11, "ms"),
        Figure("dynoscope --help", "start", 501.0, 400.0, 600.0, 11, "ms"),
    ]
    keep("startup", figures, _options(tmp_path))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n", encoding="utf-8")
    put(tmp_path, readme)
    text = readme.read_text(encoding="utf-8")
    assert "| at most 150 ms | 20 ms | 19 to 21 |" in text
    assert "| at most 500 ms | **501 ms, missed** | 400 to 600 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_small_ratios_come_with_their_standard_errors(tmp_path: Path) -> None:
    case = "gpt, layers, every step"
    figures = [
        Figure("gpt, bare", "wall ratio", 0.9987, 0.95, 1.05, 6, "", 0.0123),
        Figure(case, "wall ratio", 1.0274, 0.9812, 1.0625, 30, "", 0.0042),
    ]
    keep("overhead", figures, _options(tmp_path))
    text = section(tmp_path)
    assert "| nothing: the noise | 0.999 ± 0.012 |" in text
    assert "| dynoscope, layers, every step | 1.027 ± 0.004 |" in text
    assert "layers: wall | at most 1.05 | 1.027 | ± 0.004 |" in text


def test_without_results_it_says_so(tmp_path: Path) -> None:
    assert section(tmp_path) == "Nothing has been measured yet.\n"


def test_bars_hold_on_both_sides() -> None:
    least = Bar("", "", "", "", 15, at_least=True)
    assert least.is_met(15)
    assert not least.is_met(14.9)
    between = Bar("", "", "", "", 1.2, least=0.8)
    assert [between.is_met(x) for x in (0.79, 0.8, 1.2, 1.21)] == [
        False,
        True,
        True,
        False,
    ]
    assert between.text("") == "0.8 to 1.2"
