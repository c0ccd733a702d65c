"""Many trainings of MACIL-SD: search, the paper's sweeps, report. `python tune/search.py` is the main job.

The modules are imported one by one: nothing here loads Ray before `tune.execution.session.quiet_ray` has set it up.
"""
