from __future__ import annotations

import pytest

from macil.data.names import match_audio_file, match_visual_file, parse_name


@pytest.mark.parametrize(
    ("name", "source", "category", "label"),
    [
        ("v=38GQ9L2meyE__#1_label_B6-0-0", "v=38GQ9L2meyE", "B6-0-0", 1),
        ("v=x__y_-z=__#00-00-00_00-01-00_label_A", "v=x__y_-z=", "A", 0),
        ("Bad.Boys.II.2003__#00-06-42_00-10-00_label_B2-G-0", "Bad.Boys.II.2003", "B2-G-0", 1),
        ("My_label_Film__#3_label_G-B2-B6", "My_label_Film", "G-B2-B6", 1),
        ("clip 7_label_A-0-0", "clip 7", "A-0-0", 0),
        ("a__#b__#c_label_B4-0-0", "a__#b", "B4-0-0", 1),
    ],
)
def test_a_name_tells_source_category_and_label(name: str, source: str, category: str, label: int) -> None:
    parsed = parse_name(name)
    assert (parsed.source, parsed.category, parsed.label) == (source, category, label)
    assert parsed.unknown_codes == ()


@pytest.mark.parametrize("name", ["v=x__#1", "v=x_label_", "x_label_0-0-0", "x_label_B1--0", "x_label_A-B1"])
def test_a_name_without_a_clear_label_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="label"):
        parse_name(name)


def test_a_label_that_only_begins_like_normal_is_not_taken_for_normal() -> None:
    with pytest.raises(ValueError, match="Abuse"):
        parse_name("x__#1_label_Abuse")


def test_unknown_categories_count_as_violent_and_are_named() -> None:
    parsed = parse_name("x__#1_label_B9-B1-0")
    assert parsed.label == 1
    assert parsed.unknown_codes == ("B9",)


def test_file_names_are_split_at_their_last_marker() -> None:
    assert match_visual_file("a__1__#2_label_A__04.npy") == ("a__1__#2_label_A", 4)
    assert match_visual_file("a_label_A.npy") is None
    assert match_audio_file("a__0__vggish.npy") == "a__0"
    assert match_audio_file("a__0.npy") is None
