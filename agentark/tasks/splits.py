"""Splits by hash: a question's content determines its split."""

import hashlib
from collections.abc import Mapping

from agentark.schemas import Split

# Percentages of the content space, by hash. Base models are trained on "corpus" only. The splits are disjoint for any
# number of questions drawn from each.
SHARES: dict[Split, int] = {"corpus": 60, "train": 20, "validation": 5, "test": 15}


def split_of(*spellings: str, shares: Mapping[Split, int] = SHARES) -> Split:
    """The split of a question by the hashes of its equivalent spellings.

    If the spellings differ in split, the first split in `shares` (percentages, in order) applies. A question equivalent
    to one in the corpus is therefore also in the corpus.
    """
    buckets = [int.from_bytes(hashlib.sha256(s.encode()).digest()[:8]) % 100 for s in spellings]
    bound = 0
    for split, share in shares.items():
        bound += share
        if min(buckets) < bound:
            return split
    raise AssertionError("the shares do not add up to 100")
