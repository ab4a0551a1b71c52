"""Packaging, links and rooms agree; the public surface is what it says it is."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dynoscope

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = ("hooks", "dashboard")


def package_folders() -> set[str]:
    """Packages by their import names, as they lie in the repository."""
    found = {"dynoscope"}
    for init in (ROOT / "dynoscope").glob("**/__init__.py"):
        found.add(".".join(init.parent.relative_to(ROOT).parts))
    return found | {f"dynoscope.{name}" for name in MAPPED}


def source_files() -> list[Path]:
    """Every module of the package, where it really lies."""
    folders = ("dynoscope", *MAPPED)
    return [path for name in folders for path in (ROOT / name).rglob("*.py")]


def test_list_map_and_links_agree() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert sorted(package_folders()) == setuptools["packages"]
    for name in MAPPED:
        link = ROOT / "dynoscope" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name
        assert setuptools["package-dir"][f"dynoscope.{name}"] == name


def test_the_top_level_is_what_the_design_names() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    top = {name.split("/")[0] for name in tracked}
    assert {name for name in top if not name.startswith(".")} == {
        "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "dashboard", "dynoscope",
        "examples", "hooks", "pyproject.toml", "tests",
    }  # fmt: skip


def test_a_wheel_brings_only_dynoscope(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(copy)], check=True
    )
    build = "from setuptools import build_meta as b; print(b.build_wheel('wheel'))"
    (copy / "wheel").mkdir()
    subprocess.run(
        [sys.executable, "-c", build], cwd=copy, check=True, capture_output=True
    )
    from zipfile import ZipFile

    (wheel,) = (copy / "wheel").glob("*.whl")
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dynoscope"}
    for needed in (
        "hooks/watcher.py",
        "dashboard/assets/style.css",
        "dashboard/assets/runs.js",
        "py.typed",
    ):
        assert f"dynoscope/{needed}" in names


def test_the_public_surface() -> None:
    names = set(vars(dynoscope)["_HOMES"])
    assert dynoscope.__all__ == sorted(names)
    for name in names:
        assert getattr(dynoscope, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        dynoscope.nonsense  # noqa: B018


def test_the_version_is_said_once_and_the_same() -> None:
    assert dynoscope.__version__ == PROJECT["project"]["version"]


def test_the_readme_maps_every_file_in_its_own_words() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in source_files():
        words = ast.get_docstring(ast.parse(path.read_text()))
        assert words, f"{path} does not say what it is for"
        line = words.splitlines()[0].removesuffix(".")
        name = "" if path.name == "__init__.py" else f"    {path.name:<20} "
        assert f"{name}{line}\n" in readme, f"the file map does not know {path}"


def test_files_and_functions_stay_small() -> None:
    for path in source_files():
        text = path.read_text()
        assert text.count("\n") <= 350, f"{path} is more than one idea"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - (body or node.body)[0].lineno + 1
                assert lines <= 50, f"{path}: {node.name} does too much"


@pytest.mark.parametrize(
    "command", [["-c", "import dynoscope"], ["-m", "dynoscope", "--help"]]
)
def test_starting_loads_no_torch(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], check=True,
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "pandas", "pyarrow", "duckdb", "dash"}
