from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macil.data.xd.names import (
    match_audio_file,
    match_visual_file,
    normalise_name,
    parse_name,
    source_doubts,
)


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


@pytest.mark.parametrize(
    "name",
    ["v=x__#1", "v=x_label_", "x_label_0-0-0", "x_label_B1--0", "x_label_A-B1", "x_label_a", "x_label_a-0-0"],
)
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


FILM = "Ocean's & Co.1999__#00-12-33_00-13-44_label_B6-0-0"
VIDEO = "v=38GQ9L2me_-__#1_label_A"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (FILM, FILM),
        (VIDEO, VIDEO),
        (FILM.replace("#", "%23"), FILM),
        (quote(FILM), FILM),
        (quote(FILM, safe="#'&"), FILM),
        (quote(quote(FILM)), FILM),
        (quote(VIDEO, safe=""), VIDEO),
        (FILM.replace("#", "&#35;").replace("&", "&amp;"), FILM),
        (FILM.replace("#", "&num;"), FILM),
        (FILM.replace("#", "\uff03"), FILM),
        (quote(FILM.replace("#", "\uff03")), FILM),
        (FILM.replace("#", "_"), FILM),
        (FILM.replace("#", "-"), FILM),
        (FILM.replace("#", ""), FILM),
        (FILM.replace("#", "23"), FILM),
        (FILM.replace("#", "=23"), FILM),
        (VIDEO.replace("#", "_"), VIDEO),
        (VIDEO.replace("#", ""), VIDEO),
        (VIDEO.replace("#", "_").replace("=", "_"), VIDEO),
        ("Demo.Film__100-12-33_100-12-33_label_A", "Demo.Film__#100-12-33_100-12-33_label_A"),
        # Where "%" was not quoted only the marker is certain.
        ("100%.Wolf__%2300-12-33_00-13-44_label_A", "100%.Wolf__#00-12-33_00-13-44_label_A"),
        ("Am%E9lie__%231_label_A", "Am%E9lie__#1_label_A"),
        ("Am%C3%A9lie__%231_label_A", "Am\u00e9lie__#1_label_A"),
        ("Ame\u0301lie__#1_label_A", "Am\u00e9lie__#1_label_A"),
    ],
)
def test_a_name_that_a_tool_has_changed_is_read_as_it_was(written: str, name: str) -> None:
    assert normalise_name(written) == name
    assert match_visual_file(f"{written}__3.npy") == (name, 3)
    assert match_audio_file(f"{written}__vggish.npy") == name
    assert parse_name(normalise_name(written)).source == name.partition("__#")[0]


@pytest.mark.parametrize(
    "name",
    [
        "100%_label_A",
        "100%.Love__#1_label_A",
        "a%41b__#1_label_A",  # no tool quotes a letter
        "a%2Fb__#1_label_A",  # nor can a name hold a slash,
        "a%0Ab&#10;__#1_label_A",  # or end a line
        "Tom&Jerry;&notit;__#1_label_A",
        "v=AAAAAAAAAA___#1_label_A",
        "v=x__y_-z=__#00-00-00_00-01-00_label_A",
        "camera1__12_label_A",
        "v=short__1_label_A",
        "v_some.clip__1_label_A",
        "v=38GQ9L2me_-__=231_label_A",  # clip 1 or clip 231
        "shop_23-11-05_23-11-06_label_A",
    ],
)
def test_a_name_that_may_be_meant_so_stays(name: str) -> None:
    assert normalise_name(name) == name


@given(
    st.text(st.sampled_from("%23&#35;ampv=_-A0.\uff03e\u0301 ") | st.characters(codec="utf-8"), max_size=30)
)
def test_normalising_twice_changes_nothing(text: str) -> None:
    name = normalise_name(f"v=38GQ9L2me_-__{text}_label_A")
    assert normalise_name(name) == name
    for each in (quote(name), quote(name, safe="=")):
        assert normalise_name(normalise_name(each)) == normalise_name(each)


def doubts(*names: str) -> list[str]:
    return source_doubts(names, [parse_name(name).source for name in names])


def test_sources_that_the_names_do_not_tell_are_doubted() -> None:
    assert doubts("a__#1_label_A", "a__#2_label_A", "v=b-B__#1_label_A", "v=b-b__#1_label_A") == []
    (alone,) = doubts("a__1_label_A", "a__2_label_A", "b__1_label_A")
    assert "each of the 3 training videos counts as a source of its own" in alone
    (unmarked,) = doubts("a__#1_label_A", "a__#2_label_A", "b__1_label_A")
    assert "1 training video without a source in the name" in unmarked
    assert "the first is b__1_label_A: it counts as a source of its own" in unmarked
    (spelt,) = doubts("A Film__#1_label_A", "a.film__#2_label_A", "a.film__#3_label_A")
    assert "differ only in case, blanks or punctuation: A Film and a.film." in spelt
    (video,) = doubts("v=b-B4567890___#1_label_A", "v_b-B4567890___#2_label_A", "v=b-B4567890___#3_label_A")
    assert "punctuation: v=b-B4567890_ and v_b-B4567890_." in video
    assert (
        doubts("v_b-B4567890___#1_label_A", "v_b_B4567890___#2_label_A", "a__#1_label_A", "a__#2_label_A")
        == []
    )
