"""How many threads torch's operations may use: one, unless somebody asks for more.

The networks here are small. Measured on two cores (configs/LOG.md): two threads train leduc_ppo no faster than one
where nothing else runs, and many times slower beside busy processes, because each operation waits for both of them.
"""

import os

import torch

VARIABLE = "OMP_NUM_THREADS"


def use_threads(threads: int | None = None) -> int:
    """Let torch use so many threads; how many they are.

    Args:
        threads: None for one, or for what the environment variable OMP_NUM_THREADS says.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif VARIABLE not in os.environ:
        torch.set_num_threads(1)
    return torch.get_num_threads()
