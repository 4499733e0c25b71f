"""The Python code in the README files and in docs/ runs, and prints what the page says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md")), *sorted(ROOT.glob("docs/*.md"))]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END_OF_BLOCK = "<<< end of block >>>"
TIMEOUT_SECONDS = 120

#: What a page may show on purpose although it warns.
ALLOWED_WARNING = "ignore:a generator of results was closed:RuntimeWarning"


def code_blocks(page: Path) -> list[tuple[str, str | None]]:
    """Each Python block of a page, with the text block right behind it if there is one: what it should print."""
    found = [(match[1], match[2], match.start(), match.end()) for match in BLOCK.finditer(page.read_text("utf-8"))]
    blocks: list[tuple[str, str | None]] = []
    for (language, code, _, end), following in pairwise([*found, ("", "", 0, 0)]):
        if language == "python":
            is_output = following[0] == "text" and following[2] - end <= len("\n\n")
            blocks.append((code, following[1] if is_output else None))
    return blocks


@pytest.mark.parametrize("page", list(filter(code_blocks, PAGES)), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    blocks = code_blocks(page)
    script = tmp_path / "page.py"
    script.write_text(
        "".join(f"{code}\nif __name__ == '__main__':\n    print({END_OF_BLOCK!r})\n" for code, _ in blocks), "utf-8"
    )

    done = subprocess.run(
        [sys.executable, "-W", ALLOWED_WARNING, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = done.stdout.split(f"{END_OF_BLOCK}\n")[:-1]
    assert len(printed) == len(blocks)
    for output, (code, expected) in zip(printed, blocks, strict=True):
        assert expected is None or output == expected, f"after\n{code}"


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
