"""Every command and every piece of Python in the README and the docs, run in the order of its page."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.forks import write_commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HEADINGS = ["Overview", "Quick start", "Options", "How it works", "Limits"]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITHOUT = {"CONTRIBUTING.md", "architecture.md", "extending.md", "glossary.md"}  # pages without commands
NEEDS = {"quantization.md": "torchao", "evaluation.md": "lm_eval"}  # page -> an optional package that it is about


def runs(page: Path) -> bool:
    """True for pages with commands; pages of `docs/results` are records of runs."""
    return page.name not in WITHOUT and page.parent.name != "results"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where commands are run: in forks of one process that has imported what they need."""
    socket = tmp_path_factory.mktemp("docs") / "socket"
    server = subprocess.Popen([sys.executable, Path(__file__).parent / "forks.py", socket])
    while not socket.exists():
        assert server.poll() is None
        time.sleep(0.1)
    yield socket
    server.kill()
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=lambda page: page.name)
def test_what_a_page_says_runs(page: Path, tmp_path: Path, address: Path) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    commands = tmp_path / "bin"
    commands.mkdir()
    write_commands(commands, address)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    for number, (language, code) in enumerate(blocks):
        if language == "python":
            (tmp_path / f"block{number}.py").write_text(code, encoding="utf-8")
        command = ["bash", "-euc", code] if language == "bash" else [commands / "python", tmp_path / f"block{number}.py"]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stderr}"


def test_every_command_of_a_page_stands_in_a_block_that_runs() -> None:
    for page in PAGES:
        if runs(page):
            left = BLOCK.sub("", page.read_text(encoding="utf-8"))
            assert not re.search(r"^headway ", left, re.MULTILINE), page


@pytest.mark.slow
def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_pages_of_capabilities_have_the_fixed_headings() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        if page.name not in WITHOUT:
            found = [
                heading
                for heading in re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
                if heading in HEADINGS
            ]
            assert found == HEADINGS, page.name
