"""Which figures a run gets: in order, with captions, the same each time, and with a reason for what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from macil.data import FeatureStore
from macil.io import pictures as look
from macil.io.files import read_json, write_json_atomic
from tests.support.made_runs import search_results, spread
from tests.support.run_folders import RunFolder
from tune.reporting.figures import catalogue, figure_data
from tune.reporting.figures.catalogue import Drawn, draw_figures
from tune.reporting.pages.rendering import markdown
from tune.reporting.pages.run_page import run_page
from tune.results.label_access import open_labels
from tune.results.run import RunResults, load_run


def draw_less(patch: pytest.MonkeyPatch) -> None:
    """Everything is drawn, of fewer snippets and in fewer pixels."""
    patch.setattr(figure_data, "MOST_SNIPPETS", 40)
    patch.setattr(look, "_DPI", 30)


REPORTED = ["precision-recall", "training", "timelines", "tsne"]


@pytest.fixture(scope="module")
def search(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    """A search under ASHA with a confirmation and a refit, its labels opened; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout")
    run.begin(trials=3, options={"data": None})
    run.add("0000", epochs=2, lambda_v2b=0.5)
    run.add("0001", epochs=2, lambda_v2b=1.5, hidden_dim=32)
    run.add("0002", "stopped", 1, epochs=2, lambda_v2b=3.0)
    run.add("0000_seed7", kind="confirm", row="0000", epochs=1, seed=7)
    run.add("seed0", kind="refit", epochs=2)
    plan = read_json(run.path / "plan.json")
    space = {"lambda_v2b": "0.25 to 4, logarithmic", "hidden_dim": "16 or 32"}
    write_json_atomic(run.path / "plan.json", {**plan, "space": space})
    return open_labels(load_run(run.path), demo_store)


@pytest.fixture(scope="module")
def drawn(search: RunResults, tmp_path_factory: pytest.TempPathFactory) -> tuple[Drawn, Path]:
    """The search's figures; read only."""
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        draw_less(patch)
        return draw_figures(search, folder), folder


def test_a_search_gets_its_figures_under_their_headings(drawn: tuple[Drawn, Path]) -> None:
    found, folder = drawn
    by_group: dict[str, list[str]] = {}
    for figure in found.figures:
        by_group.setdefault(figure.group, []).append(figure.name)
        assert figure.png.read_bytes().startswith(b"\x89PNG")
        assert figure.svg.read_text(encoding="utf-8").startswith("<?xml")
    assert by_group == {
        "The search": ["confirmation", "history", "hyperparameters", "parallel", "pareto", "early-stopping"],
        "The reported training": REPORTED,
        "All trainings": ["selection-score", "heldout-ap", "losses"],
    }
    assert {path.stem for path in folder.iterdir()} == {figure.name for figure in found.figures}
    (reason,) = found.missing
    assert reason.startswith(
        "Importances of the hyperparameters: 2 of 2 trials were trained to the end (1 trial "
        "repeated another's training); at least 50 are needed"
    )


def test_a_reason_stands_under_the_heading_of_the_figure(tmp_path: Path) -> None:
    text = markdown(run_page(search_results(spread(8)), tmp_path))
    search, trained = text.index("### The search"), text.index("### The reported training")
    assert search < text.index("8 of 8 trials were trained to the end; at least 50") < trained
    assert trained < text.index("the test labels of this run have not been opened")


def test_every_caption_says_protocol_seeds_and_demo_data(drawn: tuple[Drawn, Path]) -> None:
    assert len(drawn[0].figures) > 5
    for figure in drawn[0].figures:
        assert "Protocol " in figure.caption, figure.name
        assert "seed" in figure.caption, figure.name
        assert figure.caption.endswith("demo data, made up."), figure.name
        assert figure.alt, figure.name
        assert figure.title, figure.name


def test_equal_runs_give_equal_files(
    search: RunResults, drawn: tuple[Drawn, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_less(monkeypatch)
    found, folder = drawn
    names = [figure.name for figure in draw_figures(search, tmp_path).figures]
    assert names == [figure.name for figure in found.figures]
    paths = list(folder.iterdir())
    assert len(paths) == 2 * len(names) > 0
    for path in paths:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_the_pictures_need_and_is_gone_is_said(demo_store: FeatureStore, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "closed", demo_store, "heldout").begin(trials=1)
    run.add("0000", epochs=1)
    missing = draw_figures(load_run(run.path), tmp_path).missing
    closed = "the test labels of this run have not been opened"
    for title in (
        "Precision against recall",
        "Scores of chosen test videos",
        "Raw features and embeddings (t-SNE)",
    ):
        assert f"{title}: {closed}" in missing


def test_a_figure_that_fails_is_listed_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_less(monkeypatch)
    results = search_results(spread(8))
    before = draw_figures(results, tmp_path)

    def fail(*arguments: object) -> Figure:
        raise RuntimeError("no\nroom")

    monkeypatch.setattr(catalogue, "hyperparameter_scores", fail)
    after = draw_figures(results, tmp_path)
    message = "Hyperparameters against selection score: could not be drawn (RuntimeError: no room)"
    assert [line for line in after.missing if line not in before.missing] == [message]
    names = [figure.name for figure in before.figures]
    assert "hyperparameters" in names
    assert not list(tmp_path.glob("hyperparameters.*")), "the old picture is not this report's"
    names.remove("hyperparameters")
    assert [figure.name for figure in after.figures] == names


def test_a_run_without_any_trial_has_no_figure_and_says_why(tmp_path: Path) -> None:
    drawn = draw_figures(search_results([]), tmp_path)
    assert drawn.figures == []
    assert "Optimisation history: no trial was trained to the end yet" in drawn.missing
    assert "Precision against recall: no training has finished an epoch" in drawn.missing
