from __future__ import annotations

from pathlib import Path

import pytest

from macil.data.xd.audit import audit
from macil.data.xd.layout import require_layout
from macil.data.xd.likeness import as_audio_name, as_visual_name, similar_file, similar_folder
from macil.errors import DataError
from tests.support.layouts import NORMAL, write_layout


def faults(root: Path) -> list[str]:
    return [str(fault) for fault in audit(root).faults]


def test_a_folder_of_another_spelling_is_named(tmp_path: Path) -> None:
    root = write_layout(tmp_path)
    (root / "RGBTest").rename(root / "RGB_test")
    (root / "vggish-features").rename(root / "VGGish_feature")
    assert faults(root)[:3] == [
        "vggish-features/train/: the folder is missing; VGGish_feature/train/ looks like it: rename it",
        "RGBTest/: the folder is missing; RGB_test/ looks like it: rename it",
        "vggish-features/test/: the folder is missing; VGGish_feature/test/ looks like it: rename it",
    ]


def test_a_folder_around_or_beside_the_data_is_told(tmp_path: Path) -> None:
    write_layout(tmp_path / "outer" / "data")
    with pytest.raises(DataError, match=r"outer/data has such a folder: give that one$"):
        require_layout(tmp_path / "outer")
    (tmp_path / "other" / "rgb-test").mkdir(parents=True)
    with pytest.raises(DataError, match=r"; rgb-test/ looks like one of them: rename it$"):
        require_layout(tmp_path / "other")


def test_files_of_another_spelling_are_named(tmp_path: Path) -> None:
    root = write_layout(tmp_path)
    audio = root / "vggish-features/train" / f"{NORMAL}__vggish.npy"
    audio.rename(audio.with_name(audio.name.replace("v=a.b-c=d", "V=a_b c=d")))
    (root / "annotations.txt").rename(root / "Annotation.txt")
    found = "\n".join(faults(root))
    assert (
        f"the audio is missing; {NORMAL.replace('v=a.b-c=d', 'V=a_b c=d')}__vggish.npy looks like it" in found
    )
    assert "annotations.txt: is missing, and gt.npy too" in found
    assert "Annotation.txt looks like it: rename it" in found


def test_a_name_that_the_layout_does_not_have_is_shown_as_it_would_be(tmp_path: Path) -> None:
    root = write_layout(tmp_path)
    audio = root / "vggish-features/train" / f"{NORMAL}__vggish.npy"
    audio.rename(audio.with_name(f"{NORMAL}.npy"))
    (found,) = [fault for fault in faults(root) if "expected a name" in fault]
    assert found.endswith(f"expected a name ending in __vggish.npy, such as {NORMAL}__vggish.npy")


@pytest.mark.parametrize(
    ("name", "visual", "audio"),
    [
        ("a_label_A_3.npy", "a_label_A__3.npy", "a_label_A_3__vggish.npy"),
        ("a_label_A__crop04.npy", "a_label_A__4.npy", "a_label_A__crop04__vggish.npy"),
        ("a_label_A_vggish.npy", None, "a_label_A__vggish.npy"),
        ("a_label_A.npy", None, "a_label_A__vggish.npy"),
    ],
)
def test_names_that_are_nearly_of_the_layout(name: str, visual: str | None, audio: str) -> None:
    assert (as_visual_name(name), as_audio_name(name)) == (visual, audio)


def test_nothing_is_like_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    assert similar_folder(tmp_path, ["RGB", "vggish-features/train"], []) is None
    assert similar_file(tmp_path, "annotations.txt") is None
    assert similar_file(tmp_path / "absent", "annotations.txt") is None
