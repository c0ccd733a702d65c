"""The t-SNE of Figure 5."""

from __future__ import annotations

import numpy as np
import pytest

from macil.errors import DataError
from tune.reporting.figures.figure_data import Sample
from tune.reporting.figures.tsne import draw, perplexity, project


def test_what_is_far_apart_stays_apart_and_the_layout_is_repeatable() -> None:
    random = np.random.default_rng(0)
    violent = np.arange(60) >= 30
    features = (random.normal(size=(60, 70)) + 20 * violent[:, None]).astype(np.float32)
    layout = project(features)
    assert layout.shape == (60, 2)
    assert np.array_equal(layout, project(features))
    centres = layout[violent].mean(0), layout[~violent].mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > 3 * max(
        np.linalg.norm(layout[kind] - centre, axis=1).mean()
        for kind, centre in ((violent, centres[0]), (~violent, centres[1]))
    )


def test_features_that_are_all_alike_are_refused() -> None:
    with pytest.raises(DataError, match="alike"):
        project(np.ones((30, 3), np.float32))
    with pytest.raises(DataError, match="29 test snippets; at least 30 are needed"):
        project(np.eye(29, 3, dtype=np.float32))


def test_the_perplexity_fits_few_snippets() -> None:
    assert perplexity(800) == 30
    assert perplexity(4) == 1


def test_kinds_differ_in_colour_and_mark() -> None:
    violent = np.array([True, False, False])
    layouts = {(m, s): np.eye(3, 2) for m in ("visual", "audio") for s in ("raw features", "embeddings")}
    figure = draw(Sample(violent, 1, {}), layouts)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "visual, raw features",
        "visual, embeddings",
        "audio, raw features",
        "audio, embeddings",
    ]
    for axes in figure.axes:
        background, other = axes.collections
        assert [len(np.asarray(marks.get_offsets())) for marks in (background, other)] == [2, 1]
        shapes = [np.asarray(marks.get_paths()[0].vertices).shape for marks in (background, other)]
        assert shapes[0] != shapes[1]
        assert not np.array_equal(np.asarray(background.get_edgecolor()), np.asarray(other.get_facecolor()))
