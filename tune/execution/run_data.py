"""The data of a run: opened, noted in run.json, and on a resume still those that it was begun with."""

from __future__ import annotations

from pathlib import Path

from macil.data.opening import open_here, resolve
from macil.data.origin import is_demo_data
from macil.data.silence import require_audio
from macil.data.split import Split, make_split, split_doubt
from macil.data.store.feature_store import FeatureStore, looks_like_store
from macil.data.xd.names import source_doubts
from macil.errors import DataError
from macil.io.notes import note
from macil.io.remote import is_uri
from tune.planning.plan import Plan
from tune.storage.run_folder import Workspace


def open_data(run: Workspace, plan: Plan) -> FeatureStore:
    """The store of --data; for a run that was begun with other data, the store that it was begun with.

    A folder comes to another content hash when its files have changed, or when another version of this package reads
    its names otherwise.

    Raises:
        DataError: There are no such data, or neither they nor the run's own store are what it was begun with.
    """
    info = run.info
    wanted, own = info.store_hash, info.data
    given = plan.data or "the demo data set"
    try:
        store = resolve(plan.data, reading=plan.reading, progress=plan.data is not None)
    except DataError as error:
        if wanted is None:
            raise
        refused: DataError = error
        found = f"{given} cannot be read any more"
    else:
        if wanted in (None, store.content_hash):
            return store
        refused = DataError("")
        found = f"{given} has the content hash {store.content_hash} by now"
    try:
        kept = _open_own(str(own), (str(wanted), info.labels_hash))
    except DataError as error:
        problems = [text for text in (refused.message, *refused.problems, error.message) if text]
        raise DataError(
            f"run {run.name!r} was begun with data of the content hash {wanted}, and {found}; put back its own store, "
            f"{own}, or begin a new run:",
            problems,
        ) from None
    note(f"{found}; run {run.name!r} goes on with its own store, {own}")
    return kept


def describe_data(run: Workspace, plan: Plan, store: FeatureStore) -> None:
    """Note the data, and what is doubtful about them, in `run.json` and fix the held-out split.

    Raises:
        DataError: The data cannot serve the protocol.
    """
    require_audio(store.audio_dim, store.path)
    notes, chance = [*store.notes, *store.label_notes], None
    if plan.protocol == "published":
        chance = store.test_labels().violent_share
    else:
        videos = store.videos("train")
        split = _fixed_split(run, plan, store)
        doubts = [split_doubt(split, store, plan.split_by), *source_doubts(videos.names, videos.sources)]
        notes += filter(None, doubts)
    counts = {split: len(store.videos(split).names) for split in ("train", "test")}
    run.update(
        data=plan.data if is_uri(plan.data) else str(store.path),
        store_hash=store.content_hash,
        labels_hash=store.labels_hash,
        data_notes=notes,
        dataset=counts,
        chance=chance,
        demo=plan.data is None or is_demo_data(store.path),
    )


def _fixed_split(run: Workspace, plan: Plan, store: FeatureStore) -> Split:
    """The held-out split of the run, in the names of the store: from then on its split.json holds it.

    Raises:
        DataError: The one that was given does not fit the data, or is not in the run any more.
    """
    if run.split.exists():
        split = Split.load(run.split)
        if plan.split is None:
            return split
        split = split.check_given(store)
    elif plan.split is not None:
        raise DataError(
            f"{run.split} is not there; it held the split of {plan.split}, with the hash {plan.split_hash}: put it back"
        )
    else:
        split = make_split(store, plan.split_seed, plan.split_by)
    split.save(run.split)
    if plan.split is not None:
        run.sync.flush()  # workers that do not see this folder read it there
    return split


def _open_own(location: str, hashes: tuple[str, str | None]) -> FeatureStore:
    if not is_uri(location) and not looks_like_store(Path(location)):
        raise DataError(f"{location} is not there")
    return open_here(location, location, hashes, copy=False)
