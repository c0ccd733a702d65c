"""Who decides: samplers, stopping rules, and the study that they act upon. Nothing here knows Ray."""
