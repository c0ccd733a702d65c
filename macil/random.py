"""Seeded generators: one stream per purpose, none of them global."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, purpose: str) -> int:
    """Seed of the stream `purpose` of a trial: 63 bits, the same on every machine and Python version."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator on `device` for one purpose ("init", "shuffle", "dropout", ...) of a trial."""
    generator = torch.Generator(device=device)
    generator.manual_seed(stream_seed(seed, purpose))
    return generator
