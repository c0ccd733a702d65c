"""Names of all files and folders of a run. What one training leaves is named in `macil.training.files`."""

from __future__ import annotations

from macil.training.files import (
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    MODEL_FILE,
    RECORD_FILE,
    SCORES_FILE,
    SPLIT_FILE,
    TRAINER_FILE,
    TRIALS_FOLDER,
)

__all__ = [
    "ACCESS_LOG",
    "CHECKPOINT_PREFIX",
    "CONFIG_FILE",
    "CONFIRM_FOLDER",
    "DAMAGED_PREFIX",
    "DECISIONS_FILE",
    "EPOCHS_TABLE",
    "ERROR_FILE",
    "GROUP_PREFIX",
    "INTERVALS_FILE",
    "JOURNAL_FILE",
    "LEASE_FILE",
    "LOCK_FILE",
    "LOG_FILE",
    "MEASURED_FILE",
    "MODEL_FILE",
    "NOTES_FILE",
    "ORIGIN_FILE",
    "PARAMS_FILE",
    "PLAN_FILE",
    "RECORD_FILE",
    "REFIT_FOLDER",
    "REPLAYS_FOLDER",
    "REPORT_FOLDER",
    "REPORT_MARK",
    "REPORT_PAGE",
    "REPORT_TEXT",
    "RUN_FILE",
    "SAVED_FILE",
    "SCORES_FILE",
    "SPACE_FILE",
    "SPLIT_FILE",
    "TRAINER_FILE",
    "TRIALS_FOLDER",
    "TRIALS_SHEET",
    "TRIALS_TABLE",
    "TUNE_FILES",
]

# In a run's root.
RUN_FILE = "run.json"
PLAN_FILE = "plan.json"
SPACE_FILE = "space.toml"
JOURNAL_FILE = "study.journal"
DECISIONS_FILE = "decisions.jsonl"
# Test-label access and what it gave; an earlier version kept these three in the report's folder.
ACCESS_LOG = "openings.jsonl"
MEASURED_FILE = "measured.json"
INTERVALS_FILE = "intervals.json"
# Says who holds the run: a lock on a file system; in a bucket an object that its holder renews.
LOCK_FILE = ".lock"
LEASE_FILE = ".lease"
# In the working copy of a run in a bucket: the URI that it is a copy of.
ORIGIN_FILE = ".uri"

# Folders of a run. Those of trials hold one folder a training.
CONFIRM_FOLDER = "confirm"
REFIT_FOLDER = "refit"
REPLAYS_FOLDER = "replays"
REPORT_FOLDER = "report"

# In a report's folder; a comparison of runs has the tables of trials too.
REPORT_PAGE = "report.html"
REPORT_TEXT = "report.md"
TRIALS_TABLE = "trials.parquet"
TRIALS_SHEET = "trials.csv"
EPOCHS_TABLE = "epochs.parquet"
# Stands there while the report is being written, or since its process was killed.
REPORT_MARK = ".writing"

# In a trial's folder.
PARAMS_FILE = "params.json"
LOG_FILE = "result.json"
ERROR_FILE = "error.txt"
NOTES_FILE = "notes.txt"
# Folders of groups of seeds hold what resuming needs; no table reads them.
GROUP_PREFIX = "lockstep_"
# A checkpoint folder that could not be read is renamed so, and taken for none.
DAMAGED_PREFIX = "damaged_"
# In a checkpoint folder: which epochs its weights and scores are of.
SAVED_FILE = "saved.json"

# What Ray Tune writes of its own beside the trials' folders; nothing reads it.
TUNE_FILES = (
    "experiment_state-*.json",
    "searcher-state-*.pkl",
    "search_gen_state-*.json",
    "basic-variant-state-*.json",
    "callback-states-*.pkl",
    "tuner.pkl",
)
