"""From `.npy` features in the XD-Violence layout to memory-mapped training data."""

from __future__ import annotations

from macil.data.demo.writing import write_demo
from macil.data.opening import default_cache, resolve
from macil.data.store.conversion import convert
from macil.data.store.feature_store import FeatureStore, TestLabels, VideoSet, is_store
from macil.data.xd.audit import AuditReport, audit

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
