"""A search from a script: no `if __name__ == "__main__"` is needed, in a notebook it is the same.

python examples/04_script.py [TRIALS [EPOCHS]]
"""

import sys

from macil.errors import MacilError
from tune import load_run, run_search, run_sweep

trials = int(sys.argv[1]) if len(sys.argv) > 1 else 8
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 10

# The demo data; a folder, a store or a URI in place of None. Options are those of `python tune/search.py`.
found = run_search(
    None,
    name="scripted",
    trials=trials,
    epochs=epochs,
    search={"learning_rate": "1e-4..1e-2:log"},
    overwrite=True,
)

# One row a training, an Arrow table; `.to_pandas()` makes a data frame of it where pandas is installed.
best = found.trials.sort_by([("selection_score", "descending")]).slice(0, 3)
for row in best.select(["trial_id", "kind", "selection_score", "learning_rate"]).to_pylist():
    print(row)

# The winner: its configuration, and its network, trained again on all training videos.
print(found.winner.name, found.winner.config.learning_rate)
network = found.winner.load()
print(f"{sum(each.numel() for each in network.parameters()):,} weights")

# The rows of a sweep of the paper on the same data.
rows = run_sweep(
    None, "table3", name="scripted-rows", epochs=epochs, report=False, quiet=True, overwrite=True
).trials
print(rows.select(["row", "ap", "ap_trapezoid"]).to_pylist())

# What was run can be read again, here or elsewhere; what is wrong has a message and a type.
print(load_run("scripted").status)
try:
    run_search(None, trials=0)
except MacilError as error:
    print(f"refused: {error}")
