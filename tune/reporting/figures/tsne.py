"""Raw features and embeddings of test snippets in two dimensions (Figure 5 of the paper)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from macil.errors import DataError
from macil.io.pictures import COLOURS, WIDTH
from tune.reporting.figures.axes import unique_handles
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.figure_data import MOST_VIDEOS, FigureData, Sample

# Wider features are reduced first, as the method's authors advise: distances in 50 dimensions are cheaper.
_WIDTH = 50
SETTINGS: dict[str, Any] = {"init": "pca", "max_iter": 500, "random_state": 0}
_PERPLEXITY = 30.0
# With fewer neighbourhoods than this a layout shows no groups, only where the points began.
_FEWEST = 30


def embeddings(data: FigureData) -> Drawing:
    """The figure of the reported training.

    Raises:
        DataError: See `FigureData.sample` and `project`.
    """
    sample = data.sample()
    layouts = {panel: project(rows) for panel, rows in sample.features.items()}
    violent, count = int(sample.violent.sum()), len(sample.violent)
    message = f"{count - violent} background and {violent} violent snippets"
    of = "all" if sample.videos < MOST_VIDEOS else "randomly chosen"
    caption = (
        f"t-SNE of raw features and of the embeddings by {data.reported}: {message}, drawn at random (seed 0) from "
        f"the first crop of {sample.videos} test videos ({of}); violent: more than half of a snippet's frames. "
        f"Settings: perplexity {perplexity(count):g}, {SETTINGS['max_iter']} iterations, PCA initialisation, "
        "seed 0; wider than 50, features are reduced to 50 principal components first. Distances between clusters mean "
        f"nothing. {data.basis(1, rule='last saved epoch')}"
    )
    alt = f"Four scatter plots of {message}: visual and audio, raw features and embeddings."
    return Drawing(
        "Raw features and embeddings (t-SNE, as Figure 5 of the paper)",
        caption,
        alt,
        lambda: draw(sample, layouts),
    )


def perplexity(snippets: int) -> float:
    """scikit-learn's default, or less for so few snippets that it would not be defined."""
    return min(_PERPLEXITY, (snippets - 1) / 3)


def project(features: np.ndarray) -> np.ndarray:
    """t-SNE of (N, width) features, (N, 2).

    Raises:
        DataError: All rows are alike, or too few.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(features) < _FEWEST:
        raise DataError(f"{len(features)} test snippets; at least {_FEWEST} are needed for a layout")
    if not np.ptp(features, axis=0).any():
        raise DataError("the features of all test snippets are alike; t-SNE has nothing to lay out")
    rows = features.astype(np.float64)
    if rows.shape[1] > _WIDTH and len(rows) > _WIDTH:
        rows = PCA(_WIDTH, svd_solver="full").fit_transform(rows)
    # Threads add up in whichever order they finish: with one, equal features are laid out equally.
    with threadpool_limits(1):
        layout: np.ndarray = TSNE(perplexity=perplexity(len(rows)), n_jobs=1, **SETTINGS).fit_transform(rows)
    return layout


def draw(sample: Sample, layouts: dict[tuple[str, str], np.ndarray]) -> Figure:
    """A panel for each of `layouts`: modalities below one another, raw features left, embeddings right."""
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    grid = figure.subplots(2, 2)
    kinds = [
        ("background", ~sample.violent, {"marker": "o", "facecolors": "none", "edgecolors": COLOURS[0]}),
        ("violent", sample.violent, {"marker": "^", "facecolors": COLOURS[1], "edgecolors": "none"}),
    ]
    for row, modality in zip(grid, ("visual", "audio"), strict=True):
        for axes, stage in zip(row, ("raw features", "embeddings"), strict=True):
            points = layouts[modality, stage]
            for label, chosen, style in kinds:
                axes.scatter(*points[chosen].T, 12, linewidths=0.6, alpha=0.75, label=label, **style)
            axes.set_title(f"{modality}, {stage}", loc="left")
            axes.spines[:].set_visible(True)
            axes.set(xticks=[], yticks=[])  # the coordinates of a t-SNE mean nothing
    figure.legend(*unique_handles(grid.flat), loc="outside lower center", ncols=2)
    return figure
