"""What a chunk of decisions should begin with: the memory as it was, nothing, a burn-in, or a memory worked out anew.

    python scripts/memory_study.py --seeds 101 102 103 104 105                                   (Leduc, last card only)
    python scripts/memory_study.py --config configs/t_maze_ppo.yaml --only "whole games" "stored 8" "zero 8"

Every variant is configs/last_card_ppo.yaml with other minibatches; the number is the length of a chunk in own
decisions. The rest is as in scripts/ablation.py.

    whole games     all that the rollout has of a game is one chunk
    stored          chunks begin with the memory that was there when they were played
    zero            chunks begin with an empty memory, wherever they lie in a game
    burn-in         stored, and as many decisions as the chunk has are gone through before it
    zero, burn-in   both: what the burn-in brings back is all that is remembered
    refresh         stored; from the second pass on with what the network remembers by then
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from lit_rl.batches import Batch
from lit_rl.ppo import PPO
from lit_rl.rollout import Rollout
from scripts.ablation import main


class FromZero(PPO):
    """PPO whose chunks begin with an empty memory."""

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Batch]:
        return super().make_batches(replace(rollout, state=torch.zeros_like(rollout.state)), generator)


def variant(zero: bool = False, **minibatches) -> dict:
    model = {"minibatches": minibatches}
    return {"model": {"init_args": model} | ({"class_path": "scripts.memory_study.FromZero"} if zero else {})}


VARIANTS = {"whole games": {}}
for length in (2, 8):
    VARIANTS |= {
        f"stored {length}": variant(chunk_length=length),
        f"zero {length}": variant(zero=True, chunk_length=length),
        f"burn-in {length}": variant(chunk_length=length, burn_in=length),
        f"zero, burn-in {length}": variant(zero=True, chunk_length=length, burn_in=length),
        f"refresh {length}": variant(chunk_length=length, refresh=True),
    }

if __name__ == "__main__":
    main(VARIANTS, "last_card_ppo", __doc__, study="memory_study")
