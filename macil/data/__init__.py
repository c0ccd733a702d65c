"""From `.npy` features in the XD-Violence layout to memory-mapped training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from macil.io.lazy import attach

if TYPE_CHECKING:
    from macil.data.cache import default_cache
    from macil.data.demo.writing import write_demo
    from macil.data.opening import resolve
    from macil.data.store.conversion import convert
    from macil.data.store.feature_store import FeatureStore, TestLabels, VideoSet, is_store
    from macil.data.xd.audit import AuditReport, audit
else:
    # Many modules below need neither Arrow nor SciPy; importing one of them must not load both.
    __getattr__, __dir__ = attach(
        __name__,
        {
            "macil.data.cache": ("default_cache",),
            "macil.data.demo.writing": ("write_demo",),
            "macil.data.opening": ("resolve",),
            "macil.data.store.conversion": ("convert",),
            "macil.data.store.feature_store": ("FeatureStore", "TestLabels", "VideoSet", "is_store"),
            "macil.data.xd.audit": ("AuditReport", "audit"),
        },
    )

__all__ = [
    "AuditReport",
    "FeatureStore",
    "TestLabels",
    "VideoSet",
    "audit",
    "convert",
    "default_cache",
    "is_store",
    "resolve",
    "write_demo",
]
