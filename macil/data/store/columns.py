"""The columns of a store's small tables, `index.arrow` and `labels.arrow`: their names and types."""

from __future__ import annotations

import pyarrow as pa

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

# Label and category of a test video are null.
INDEX_SCHEMA = pa.schema(
    {
        NAME: pa.string(),
        SOURCE: pa.string(),
        SPLIT: pa.string(),
        CATEGORY: pa.string(),
        LABEL: pa.int8(),
        LENGTH: pa.int64(),
        VISUAL_OFFSET: pa.int64(),
        AUDIO_OFFSET: pa.int64(),
        AUDIO_LENGTH: pa.int64(),
        CROPS: pa.int32(),
        DIGEST: pa.string(),
    }
)
# A store of format_version 1 has no hashes of its videos.
LATER = (DIGEST,)


def labels_schema(snippet_frames: int) -> pa.Schema:
    """The columns of `labels.arrow`; the frame labels of a video are a list of its snippets."""
    snippet = pa.list_(pa.uint8(), snippet_frames)
    return pa.schema(
        {
            NAME: pa.string(),
            CATEGORY: pa.string(),
            LABEL: pa.int8(),
            FRAME_LABELS: pa.large_list(snippet),
        }
    )
