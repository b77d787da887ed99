"""The pages say what the program does: the reference is as generated, the examples run."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/filtering.md"]


def test_reference_is_as_generated() -> None:
    check = [sys.executable, ROOT / "docs" / "make_reference.py", "--check"]
    assert subprocess.run(check, cwd=ROOT).returncode == 0, "run `make reference`"


def test_links_lead_somewhere() -> None:
    for page in [ROOT / name for name in PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_of_the_guide_run(tmp_path: Path) -> None:
    """Every attpc-filter command of the guide, with the sample in place of the user's runs."""
    sample = ROOT / "sample" / "run_0101.h5"
    for name in ("run_0101.h5", "run_0102.h5"):
        shutil.copy(sample, tmp_path / name)
    text = (ROOT / "docs" / "filtering.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    commands = [
        line.split("#")[0].replace("/data/e12014/", "").strip()
        for block in blocks
        for line in block.splitlines()
        if line.startswith("attpc-filter")
    ]
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(command)
        target = words.pop() if ">" in words else None
        words = [word for word in words[1:] if word != ">"]
        if words[0] == "run":
            words += ["--overwrite", "--no-picture"]
        ended = subprocess.run(
            [sys.executable, "-m", "attpc_filter.cli", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        if target:
            (tmp_path / target).write_text(ended.stdout, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholders(page: str) -> None:
    assert not re.search(r"@[A-Z]+@|TODO|FIXME", (ROOT / page).read_text(encoding="utf-8"))
