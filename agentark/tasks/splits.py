"""Splits by hash: the content of a question decides which split it belongs to."""

import hashlib

from agentark.schemas import Split

# Shares of the content space, by hash. "corpus" is what base models may be trained on; the study's own splits never
# meet it, or one another, whatever number of questions is drawn from each.
SHARES: dict[Split, int] = {"corpus": 60, "train": 20, "validation": 5, "test": 15}


def split_of(*spellings: str) -> Split:
    """The split a question's content belongs to, by hash alone: of all its spellings' splits, the first in SHARES.

    So a question that comes to the same as one in the corpus is in the corpus too.
    """
    buckets = [int.from_bytes(hashlib.sha256(s.encode()).digest()[:8]) % 100 for s in spellings]
    bound = 0
    for split, share in SHARES.items():
        bound += share
        if min(buckets) < bound:
            return split
    raise AssertionError("SHARES add up to 100")
