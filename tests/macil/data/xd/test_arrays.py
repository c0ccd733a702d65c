from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from macil.data.xd.arrays import (
    ArrayError,
    cast_features,
    is_silent,
    load_features,
    nonzero_rows,
    read_header,
)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_floating_point_array_loads_as_the_same_float32(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3)).astype("float16")
    np.save(tmp_path / "x.npy", np.asarray(values, dtype=dtype, order=order))  # type: ignore[call-overload]
    header = read_header(tmp_path / "x.npy")
    loaded = load_features(tmp_path / "x.npy")
    assert (header.rows, header.width) == (5, 3)
    assert loaded.dtype == np.float32
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, values.astype("float32"))


def test_headers_of_both_usual_versions_are_read(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0)):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, np.ones((2, 4), np.float32), version=version)
        assert read_header(tmp_path / "x.npy").nbytes == 32


def test_a_header_is_read_without_the_data(tmp_path: Path) -> None:
    # A sparse file of 400 GB: reading it would take more memory than there is.
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**8, 1000)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 10**11)
    assert read_header(tmp_path / "x.npy").rows == 10**8


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((3, 4), np.int64), "dtype"),
        (np.zeros(3, np.float32), "shape"),
        (np.zeros((1, 3, 4), np.float32), "shape"),
        (np.zeros((0, 4), np.float32), "empty"),
        (np.zeros((3, 0), np.float32), "empty"),
        (np.array([{"a": 1}], dtype=object), "dtype"),
    ],
)
def test_a_header_that_cannot_be_features_is_refused(tmp_path: Path, array: np.ndarray, kind: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ArrayError) as error:
        read_header(tmp_path / "x.npy")
    assert error.value.kind == kind


@pytest.mark.parametrize("cut", [0, 5, 9, 60, 128 + 11])
def test_every_cut_of_a_file_is_noticed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((4, 5), np.float32))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArrayError) as error:
        read_header(path)
    assert error.value.kind == ("truncated" if cut > 128 else "unreadable")


def test_bytes_beyond_the_data_are_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 5), np.float32))
    with (tmp_path / "x.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ArrayError, match="4 bytes more"):
        read_header(tmp_path / "x.npy")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArrayError, match="directory"):
        read_header(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_placed(tmp_path: Path, value: float) -> None:
    array = np.ones((6, 4), np.float32)
    array[4, 2] = array[5, 0] = value
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ArrayError, match="2 NaN or infinite values, the first at row 4, column 2") as error:
        load_features(tmp_path / "x.npy")
    assert error.value.kind == "not-finite"


def test_large_finite_values_whose_sum_overflows_are_accepted(tmp_path: Path) -> None:
    array = np.full((100, 10), 3e38, np.float32)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(load_features(tmp_path / "x.npy"), array)


def test_visual_features_of_nothing_but_zeros_are_refused() -> None:
    features = np.zeros((6, 4), np.float32)
    with pytest.raises(ArrayError) as error:
        nonzero_rows(features)
    assert error.value.kind == "all-zero"
    features[2, 3] = -1e-30
    assert nonzero_rows(features).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "float64", "longdouble"])
@pytest.mark.parametrize("value", [1.0, -1e-5, np.nan])
def test_audio_is_silent_when_no_value_of_it_differs_from_zero(
    tmp_path: Path, dtype: str, value: float
) -> None:
    audio = np.zeros((3000, 4), dtype)
    audio[1] = -0.0
    np.save(tmp_path / "x.npy", audio)
    assert is_silent(tmp_path / "x.npy")
    audio[-1, -1] = value
    np.save(tmp_path / "x.npy", audio)
    assert not is_silent(tmp_path / "x.npy")


def test_a_value_beyond_the_range_of_the_dtype_is_placed() -> None:
    array = np.ones((3, 4), np.float32)
    array[2, 1] = 70_000
    with pytest.raises(ArrayError, match="70000 at row 2, column 1, beyond the largest float16") as error:
        cast_features(array, "float16")
    assert error.value.kind == "overflow"
    array[2, 1] = 65_504
    assert cast_features(array, "float16")[2, 1] == 65_504
