"""From `.npy` features in the XD-Violence layout to memory-mapped training data."""

from __future__ import annotations

from macil.data.audit import AuditReport, audit
from macil.data.convert import convert
from macil.data.demo import write_demo
from macil.data.resolve import default_cache, resolve
from macil.data.store import FeatureStore, TestLabels, VideoSet, is_store

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
