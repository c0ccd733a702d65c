"""The names of the columns of a store's small tables, `index.arrow` and `labels.arrow`."""

from __future__ import annotations

# In both tables.
NAME = "name"
CATEGORY = "category"
LABEL = "label"

# In the index: where a video's rows lie, and what they hash to.
SOURCE = "source"
SPLIT = "split"
LENGTH = "length"
VISUAL_OFFSET = "visual_offset"
AUDIO_OFFSET = "audio_offset"
AUDIO_LENGTH = "audio_length"
CROPS = "crops"
DIGEST = "digest"

# In the labels.
FRAME_LABELS = "frame_labels"
