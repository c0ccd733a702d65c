"""Exports: each format scores as the network does, or there is no file."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch
from safetensors.torch import save as to_bytes

import macil.inference.exporting
from macil.config import TrialConfig
from macil.errors import DataError, UsageError
from macil.inference.exporting import SHAPES, ExportError, Parity, compare, export_network
from macil.inference.formats import FORMATS, Format
from macil.inference.onnx_format import OPSET
from macil.inference.released import load_released, to_released
from macil.inference.safetensors_format import load_safetensors
from macil.model import TwoStreamNetwork

NAMES: dict[Format, str] = {"safetensors": "m.safetensors", "onnx": "m.onnx", "released": "m.pkl"}
ORIGIN = {"epoch": 3, "protocol": "published", "seed": 1}


def make_network(seed: int = 0, **options: Any) -> TwoStreamNetwork:
    config = TrialConfig(hidden_dim=16, feedforward_dim=8, num_heads=2, seed=seed, **options)
    return TwoStreamNetwork(config, 12, 5).eval()


@pytest.fixture(scope="module")
def network() -> TwoStreamNetwork:
    return make_network()


@pytest.fixture(scope="module")
def exported(network: TwoStreamNetwork, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for to, name in NAMES.items():
        parity = export_network(network, to, folder / name, ORIGIN)
        assert parity <= Parity(1e-5, 1e-4)
        assert to == "onnx" or parity == Parity(0, 0)
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES.values())
    return {to: folder / name for to, name in NAMES.items()}


def test_safetensors_hold_network_and_configuration(
    network: TwoStreamNetwork, exported: dict[Format, Path]
) -> None:
    loaded, origin = load_safetensors(exported["safetensors"])
    assert (loaded.config, origin) == (network.config, ORIGIN)
    assert not loaded.training
    assert {name: value.tolist() for name, value in loaded.state_dict().items()} == {
        name: value.tolist() for name, value in network.state_dict().items()
    }
    with safetensors.safe_open(exported["safetensors"], "np") as file:
        metadata = file.metadata()
    assert (metadata["kind"], metadata["format_version"]) == ("macil network", "1")
    assert (metadata["visual_dim"], metadata["audio_dim"]) == ("12", "5")
    assert json.loads(metadata["config"])["hidden_dim"] == 16


def test_released_weights_have_every_key_of_the_authors_network(
    network: TwoStreamNetwork, exported: dict[Format, Path]
) -> None:
    weights = torch.load(exported["released"], weights_only=True)
    expected = to_released(network)
    assert set(weights) == set(expected)
    loaded = load_released(exported["released"], num_heads=2)
    assert compare(network, macil.inference.exporting._scorer(loaded)) == Parity(0, 0)


@pytest.mark.parametrize(("videos", "snippets"), [(1, 1), (2, 9), (7, 3), (1, 450)])
def test_onnx_scores_any_number_of_videos_and_snippets(
    network: TwoStreamNetwork, exported: dict[Format, Path], videos: int, snippets: int
) -> None:
    session = onnxruntime.InferenceSession(exported["onnx"], providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(videos)
    visual = rng.random((videos, snippets, 12), np.float32)
    audio = rng.random((videos, snippets, 5), np.float32)
    scores, logits = session.run(None, {"visual": visual, "audio": audio})
    with torch.no_grad():
        expected = network(torch.from_numpy(visual), torch.from_numpy(audio)).fused_logits
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(scores, torch.sigmoid(expected).numpy(), atol=1e-6)


def test_onnx_says_what_it_is_and_not_where_it_was_made(exported: dict[Format, Path]) -> None:
    model = onnx.load(exported["onnx"])
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "visual": ["videos", "snippets", 12],
        "audio": ["videos", "snippets", 5],
        "scores": ["videos", "snippets"],
        "logits": ["videos", "snippets"],
    }
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties["kind"] == "macil network"
    assert json.loads(properties["origin"]) == ORIGIN
    assert b".py" not in exported["onnx"].read_bytes()


def test_a_head_for_each_modality_can_be_exported_but_not_for_the_released_code(tmp_path: Path) -> None:
    network = make_network(fidelity="paper")
    export_network(network, "safetensors", tmp_path / "m.safetensors")
    assert "head_a.weight" in load_safetensors(tmp_path / "m.safetensors").network.state_dict()
    with pytest.raises(DataError, match="shared_head"):
        export_network(network, "released", tmp_path / "m.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_network_without_finite_scores_is_refused(tmp_path: Path) -> None:
    network = make_network()
    with torch.no_grad():
        network.get_parameter("layer.feedforward.outer.weight").fill_(torch.inf)
    with pytest.raises(DataError, match="no finite numbers: its weights are damaged"):
        export_network(network, "safetensors", tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_that_scores_differently_is_not_kept(
    to: Format,
    network: TwoStreamNetwork,
    exported: dict[Format, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = make_network()
    with torch.no_grad():
        changed.get_parameter("layer.feedforward.outer.weight")[3, 2] += 1e-2
    save = macil.inference.exporting._save

    def save_other(network: TwoStreamNetwork, to: Format, path: Path, origin: Any) -> None:
        if to == "onnx":  # exporting once more takes seconds: the file stays, the network changes
            shutil.copy(exported["onnx"], path)
        else:
            save(changed, to, path, origin)

    monkeypatch.setattr(macil.inference.exporting, "_save", save_other)
    with pytest.raises(ExportError, match="scores differently from the network"):
        export_network(changed if to == "onnx" else network, to, tmp_path / NAMES[to])
    assert list(tmp_path.iterdir()) == []


def test_a_scorer_of_nan_or_of_another_shape_is_no_match(network: TwoStreamNetwork) -> None:
    right = macil.inference.exporting._scorer(network)

    def poisoned(visual: torch.Tensor, audio: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        scores, logits = right(visual, audio)
        return np.where(scores.size == SHAPES[1][1], np.nan, scores), logits

    with pytest.raises(ExportError, match="nan in scores"):
        macil.inference.exporting._require_parity(compare(network, poisoned), "onnx")
    with pytest.raises(ExportError, match="shape"):
        compare(network, lambda visual, audio: tuple(x[..., :0] for x in right(visual, audio)))  # type: ignore[arg-type, return-value]


def test_a_difference_in_one_long_video_is_seen(network: TwoStreamNetwork) -> None:
    right = macil.inference.exporting._scorer(network)

    def off_at_the_end(visual: torch.Tensor, audio: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        scores, logits = right(visual, audio)
        logits = logits.copy()
        logits[-1, 150:151] += 0.25
        return scores, logits

    parity = compare(network, off_at_the_end)
    assert parity.scores == 0
    assert parity.logits == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("to", "name", "text"),
    [
        ("onnx", "m.safetensors", "must end in .onnx"),
        ("safetensors", "m.pt", "must end in .safetensors"),
        ("released", "folder", "is a folder"),
        ("released", "taken.pkl", "exists; name another file"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    to: Format, name: str, text: str, network: TwoStreamNetwork, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.pkl").write_text("mine")
    with pytest.raises(UsageError, match=text):
        export_network(network, to, tmp_path / name)
    assert (tmp_path / "taken.pkl").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "taken.pkl"]


def test_a_file_is_replaced_when_asked(network: TwoStreamNetwork, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_text("mine")
    export_network(network, "released", tmp_path / "m.pkl", overwrite=True)
    assert load_released(tmp_path / "m.pkl", 2).fc_v.in_features == 12


def test_without_the_extra_the_line_that_installs_it_is_told(
    network: TwoStreamNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(UsageError, match=r"needs onnxscript; pip install .* --editable '\.\[export\]'"):
        export_network(network, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def damaged(exported: dict[Format, Path], how: str) -> bytes:
    whole = exported["safetensors"].read_bytes()
    if how == "half":
        return whole[: len(whole) // 2]
    if how == "text":
        return b"no tensors"
    with safetensors.safe_open(exported["safetensors"], "pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if how == "foreign":
        metadata = {}
    elif how == "version":
        metadata["format_version"] = "99"
    elif how == "width":
        metadata["visual_dim"] = "13"
    elif how == "tensor":
        del tensors["fc_v.bias"]
    elif how == "config":
        metadata["config"] = '{"hidden_dim": -1}'
    return to_bytes(tensors, metadata)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("half", "cannot be read"),
        ("text", "cannot be read"),
        ("foreign", "is not a network of this project"),
        ("version", "format_version is 99, this version of macil reads 1"),
        ("width", "does not fit its own description"),
        ("tensor", r"fc_v\.bias"),
        ("config", "hidden_dim"),
    ],
)
def test_a_damaged_safetensors_file_is_refused_by_name(
    how: str, text: str, exported: dict[Format, Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(damaged(exported, how))
    with pytest.raises(DataError, match=r"bad\.safetensors") as caught:
        load_safetensors(tmp_path / "bad.safetensors")
    assert caught.match(text)
    with pytest.raises(DataError, match="absent"):
        load_safetensors(tmp_path / "absent.safetensors")


def test_an_export_does_not_depend_on_the_global_generator(network: TwoStreamNetwork, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    export_network(network, "safetensors", tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
