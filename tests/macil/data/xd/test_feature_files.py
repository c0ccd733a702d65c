"""Feature files that somebody names: which videos they are, and what is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from macil.data.xd.arrays import ArrayError
from macil.data.xd.feature_files import (
    VideoFiles,
    header_faults,
    load_finite,
    stack_crops,
    videos_of_files,
    videos_of_folder,
)
from macil.errors import DataError
from tests.support import layouts


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return layouts.write_layout(tmp_path / "data")


def crops_of(layout: Path, name: str, folder: str = "RGBTest") -> tuple[Path, ...]:
    return tuple(layout / folder / f"{name}__{c}.npy" for c in range(layouts.CROPS))


def pair(folder: Path, name: str, shape: tuple[int, ...] = (4, 6), audio_rows: int = 4) -> tuple[Path, Path]:
    visual, audio = folder / f"{name}.npy", folder / f"{name}-sound.npy"
    layouts.save(visual, np.ones(shape))
    layouts.save(audio, np.ones((audio_rows, 4)))
    return visual, audio


@pytest.mark.parametrize(("folder", "audio", "name"), [
    ("RGBTest", "vggish-features/test", layouts.TEST_VIOLENT),
    ("RGB", "vggish-features/train", layouts.NORMAL),
])  # fmt: skip
def test_one_crop_names_the_whole_video(layout: Path, folder: str, audio: str, name: str) -> None:
    crops = crops_of(layout, name, folder)
    expected = VideoFiles(name, crops, layout / audio / f"{name}__vggish.npy")
    for given in (crops[:1], crops[1:2], crops):
        assert videos_of_files(given) == ((expected,), ())


def test_the_other_spelling_of_the_layout_is_found(layout: Path) -> None:
    (layout / "i3d-features").mkdir()
    (layout / "RGBTest").rename(layout / "i3d-features" / "RGBTest")
    (path, *_) = crops_of(layout, layouts.TEST_NORMAL, "i3d-features/RGBTest")
    (video,), problems = videos_of_files([path])
    assert problems == ()
    assert video.audio == layout / "vggish-features/test" / f"{layouts.TEST_NORMAL}__vggish.npy"


def test_audio_is_found_beside_the_visual_file_or_where_it_is_named(layout: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    name = layouts.TEST_NORMAL
    for path in crops_of(layout, name):
        shutil.copy(path, flat)
    (path, *_) = crops_of(layout, name)
    elsewhere = layout / "vggish-features/test" / f"{name}__vggish.npy"
    (video,), problems = videos_of_files([flat / path.name, elsewhere])
    assert (video.audio, problems) == (elsewhere, ())
    assert "audio is missing" in videos_of_files([flat / path.name]).problems[0]
    shutil.copy(elsewhere, flat)
    (video,), problems = videos_of_files([flat / path.name])
    assert (video.audio, problems) == (flat / elsewhere.name, ())


def test_other_names_are_pairs_in_the_order_given(layout: Path, tmp_path: Path) -> None:
    first, second = pair(tmp_path, "first"), pair(tmp_path, "second")
    (named, *_) = crops_of(layout, layouts.TEST_NORMAL)
    videos, problems = videos_of_files([*first, named, second[0], first[1]])
    assert problems == ()
    assert [video.name for video in videos] == ["first", layouts.TEST_NORMAL, "second"]
    assert videos[2] == VideoFiles("second", (second[0],), first[1]), "two videos may share their audio"


def test_audio_named_as_in_the_layout_may_follow_a_visual_file_of_another_name(tmp_path: Path) -> None:
    visual, audio = pair(tmp_path, "clip")
    renamed = audio.rename(tmp_path / "clip__vggish.npy")
    assert videos_of_files([visual, renamed]) == ((VideoFiles("clip", (visual,), renamed),), ())


def test_everything_wrong_with_the_names_is_told_at_once(layout: Path, tmp_path: Path) -> None:
    visual, audio = pair(tmp_path, "clip")
    other = tmp_path / "other"
    other.mkdir()
    twin = pair(other, "clip")
    (other / "notes.txt").write_text("x")
    (crop, *_) = crops_of(layout, layouts.TEST_NORMAL)
    layouts.save(other / "gap__1.npy", np.ones((2, 6)))
    layouts.save(other / "gap__vggish.npy", np.ones((2, 4)))
    layouts.save(other / "who__vggish.npy", np.ones((2, 4)))
    layouts.save(other / ".hidden__0.npy", np.ones((2, 6)))
    videos, problems = videos_of_files(
        [
            other / "who__vggish.npy",
            visual,
            audio,
            *twin,
            other / "absent.npy",
            other / "absent",
            other / "notes.txt",
            other / ".hidden__0.npy",
            other / "gap__1.npy",
            visual,
            crop,
            visual,
        ]
    )
    assert [video.name for video in videos] == ["clip", layouts.TEST_NORMAL]
    text = "\n".join(problems)
    for part in (
        f"{twin[0]}: is a second video called clip",
        f"{other / 'absent.npy'}: does not exist",
        f"{other / 'absent'}: does not exist; expected a data folder",
        f"{other / 'notes.txt'}: is not a .npy file",
        f"{other / '.hidden__0.npy'}: the name begins with a dot",
        f"{other / 'gap'}: its crops should be numbered from 0 without a gap; there are 1",
        f"{visual}: stands alone",
        f"{other / 'who__vggish.npy'}: is the audio of who",
    ):
        assert part in text
    assert len(problems) == 8


def test_a_folder_gives_the_videos_of_a_split_and_needs_no_labels(layout: Path) -> None:
    (layout / "annotations.txt").unlink()
    shutil.rmtree(layout / "RGB")
    videos, problems = videos_of_folder(layout, "test")
    assert problems == ()
    assert [video.name for video in videos] == sorted(layouts.TEST_ROWS)
    chosen = videos_of_folder(layout, "test", [layouts.TEST_VIOLENT, layouts.TEST_NORMAL])
    assert [video.name for video in chosen.videos] == [layouts.TEST_VIOLENT, layouts.TEST_NORMAL]
    with pytest.raises(DataError, match=r"no train video; expected RGB/NAME__0\.npy"):
        videos_of_folder(layout, "train")
    with pytest.raises(DataError, match=r"did you mean v=zz__"):
        videos_of_folder(layout, "test", [layouts.TEST_NORMAL[:-1]])


def test_a_video_that_lacks_a_crop_which_the_others_have_is_not_scored_without_it(layout: Path) -> None:
    lacking = layout / "RGBTest" / layouts.TEST_NORMAL
    lacking.with_name(f"{lacking.name}__{layouts.CROPS - 1}.npy").unlink()
    message = f"{lacking}: has {layouts.CROPS - 1} crops, and videos beside it have {layouts.CROPS}; give it as many"
    for found in (
        videos_of_folder(layout, "test", [layouts.TEST_NORMAL]),
        videos_of_files([lacking.with_name(f"{lacking.name}__0.npy")]),
    ):
        (problem,) = found.problems
        assert problem.startswith(message)
        assert found.videos == ()


def test_a_video_of_a_folder_without_audio_is_a_problem_only_where_it_is_chosen(layout: Path) -> None:
    (layout / "vggish-features/test" / f"{layouts.TEST_NORMAL}__vggish.npy").unlink()
    videos, (problem,) = videos_of_folder(layout, "test")
    assert layouts.TEST_NORMAL not in {video.name for video in videos}
    assert problem.startswith(f"{layout / 'RGBTest' / layouts.TEST_NORMAL}: its audio is missing")
    assert videos_of_folder(layout, "test", [layouts.TEST_VIOLENT]).problems == ()


def test_headers_are_compared_with_what_the_network_reads(layout: Path, tmp_path: Path) -> None:
    (video,), _ = videos_of_files(crops_of(layout, layouts.TEST_VIOLENT))
    assert header_faults(video, 6, 4) == {}
    assert set(header_faults(video, 7, 5)) == set(video.files)
    layouts.save(video.visual[1], np.ones((5, 6)))
    layouts.save(video.visual[2], np.ones((2, 5, 6)))
    faults = header_faults(video, 6, 4)
    assert "has 5 snippets and" in faults[video.visual[1]]
    assert "expected (snippets, features)" in faults[video.visual[2]]
    assert len(faults) == 2


def test_a_pair_may_hold_its_crops_in_one_array(tmp_path: Path) -> None:
    visual, audio = pair(tmp_path, "clip", (2, 4, 6))
    (video,), _ = videos_of_files([visual, audio])
    assert header_faults(video, 6, 4) == {}
    arrays = {path: load_finite(path) for path in video.files}
    assert stack_crops(video, arrays).shape == (2, 4, 6)
    layouts.save(audio, np.ones((1, 4, 4)))
    assert list(header_faults(video, 6, 4)) == [audio]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_finite_float32_are_refused_with_their_place(tmp_path: Path, value: float) -> None:
    array = np.zeros((2, 3, 4))
    array[1, 2, 3] = value
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ArrayError, match=r"holds 1 values .* the first at \[1, 2, 3\]"):
        load_finite(tmp_path / "x.npy")


def test_silence_and_other_float_types_are_fine(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(np.zeros((3, 4), ">f8")))
    loaded = load_finite(tmp_path / "x.npy")
    assert loaded.dtype == np.float32
    assert loaded.flags.c_contiguous


def quoted(text: str) -> str:
    return text.replace("#", "%23")


def test_names_that_a_mirror_has_changed_are_those_of_the_layout(layout: Path) -> None:
    layouts.rename(layout, quoted)
    name = layouts.TEST_VIOLENT
    videos, problems = videos_of_folder(layout, "test", [quoted(name), name])
    assert ([video.name for video in videos], problems) == ([name], ())
    assert all(path.is_file() for path in videos[0].files)
    assert videos_of_files(videos[0].visual[1:2]) == (videos, ())
    first, second = pair(layout, quoted(name))
    assert [video.name for video in videos_of_files([first, second]).videos] == [name]


@pytest.mark.parametrize("which", ["visual", "audio"])
def test_two_spellings_of_one_name_are_a_problem_of_that_video_alone(layout: Path, which: str) -> None:
    name, other = layouts.TEST_VIOLENT, layouts.TEST_NORMAL
    (path, *_) = crops_of(layout, name)
    if which == "audio":
        path = layout / "vggish-features/test" / f"{name}__vggish.npy"
    copied = Path(shutil.copy(path, path.with_name(quoted(path.name))))
    for found in (videos_of_folder(layout, "test", [name]), videos_of_files(crops_of(layout, name))):
        (problem,) = found.problems
        assert "is read as the same file as" in problem
        assert str(copied) in problem
        assert str(path) in problem
    assert videos_of_folder(layout, "test", [other]).problems == ()
    assert videos_of_files(crops_of(layout, other)).problems == ()
