"""What every sampler is made from, beside the search seed and the number of the suggestion."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from optuna.search_space import IntersectionSearchSpace

from tune.algorithms.space import Space


def _nothing_seen() -> IntersectionSearchSpace:
    return IntersectionSearchSpace(include_pruned=True)


@dataclass(frozen=True)
class SamplerSettings:
    """The search as its samplers see it.

    Attributes:
        space: What is searched.
        startup: Finished trials before a model of the scores is used; random suggestions until then.
        seen: What was seen of the study's rows, kept from suggestion to suggestion to spare time: a new sampler would
            read all of them again. It changes no suggestion.
    """

    space: Space
    startup: int
    seen: IntersectionSearchSpace = field(default_factory=_nothing_seen)

    @property
    def conditional(self) -> bool:
        """Whether some hyperparameters are searched beside certain values of others alone."""
        return any(dimension.when for dimension in self.space.values())


def suggestion_seed(search_seed: int, number: int) -> int:
    """The seed of one suggestion, 32 bits."""
    digest = hashlib.blake2b(f"{search_seed}/suggestion/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
