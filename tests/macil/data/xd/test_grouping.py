from __future__ import annotations

import re
from pathlib import Path

import pytest

from macil.data.xd.audit import audit
from macil.data.xd.folders import Finding
from macil.data.xd.grouping import SECTIONS, group_findings, sections_of
from macil.errors import DataError
from tests.support.layouts import write_layout
from tests.support.repository import ROOT

FIRST = "the first three are"


def test_what_repeats_in_a_folder_is_one_line_with_a_count_and_the_first_three(tmp_path: Path) -> None:
    root = write_layout(tmp_path)
    for path in [*root.glob("vggish-features/test/*"), *root.glob("RGBTest/*")]:
        path.write_bytes(b"no array")
    lines = audit(root).fault_lines()
    visual = sorted(path.name for path in root.glob("RGBTest/*"))
    assert lines[0].startswith(
        f"RGBTest: 9 of 9 visual files cannot be read; the first three are {visual[0]}, "
    )
    assert lines[0].endswith("npy (is not a .npy file: the magic string is not correct; expected b'\\x93NUMPY', "
                             "got b'no arr')")  # fmt: skip
    # Three are still listed one by one.
    assert [line.partition("__vggish.npy: ")[2][:9] for line in lines[1:]] == ["is not a "] * 3
    with pytest.raises(DataError, match="has 12 faults") as refused:
        audit(root).raise_for_faults()
    assert list(refused.value.problems) == lines


def test_findings_of_another_kind_place_or_sort_are_other_lines() -> None:
    findings = [
        *(Finding("missing", f"RGB/{i}.npy", f"crop {i} of 5 is missing") for i in range(4)),
        *(Finding("missing", f"RGBTest/{i}.npy", "crop 0 of 5 is missing") for i in range(1200)),
        *(Finding("missing", f"RGB/{i}", "has audio in x/ but no visual features") for i in range(3)),
        *(
            Finding("annotation", f"list/annotations.txt line {i}", f"n{i} names no interval")
            for i in range(5)
        ),
        Finding("source", "", "doubt"),
    ]
    one = "; ".join(f"{i}.npy: crop {i} of 5 is missing" for i in range(3))
    two = "; ".join(f"line {i}: n{i} names no interval" for i in range(3))
    lines = group_findings(findings, {"RGB": "10 visual files", "RGBTest": "4,000 visual files"})
    assert lines == [
        f"RGB: 4 of 10 visual files missing; {FIRST} {one}",
        f"RGBTest: 1,200 of 4,000 visual files missing; {FIRST} 0.npy, 1.npy, 2.npy (crop 0 of 5 is missing)",
        *(f"RGB/{i}: has audio in x/ but no visual features" for i in range(3)),
        f"list/annotations.txt: 5 times (annotation); {FIRST} {two}",
        "doubt",
    ]  # fmt: skip


def test_every_kind_of_finding_has_its_section_of_the_docs() -> None:
    sources = [path.read_text() for path in (ROOT / "macil" / "data").rglob("*.py")]
    kinds = {kind for text in sources for kind in re.findall(r'(?:Finding|ArrayError)\(\s*"([a-z-]+)"', text)}
    assert kinds - {kind for about in SECTIONS.values() for kind in about} == set()
    headings = re.findall(r"^##+ (.+)$", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE)
    anchors = {f"docs/data.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    named = sections_of([Finding(kind, "", "") for kind in kinds])
    assert len(named) == len(SECTIONS)
    assert set(named) <= anchors
