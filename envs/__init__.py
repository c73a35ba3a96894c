"""Games and what drives them: numpy and numba only; knows nothing of learning.

With the environment variable LITRL_BOUNDS_CHECK=1 every kernel, of games, drivers and learners alike, is compiled with
bounds checks: an index that leaves its array is an IndexError instead of a stray read or write. For tests; it is slow.
"""

import os

import numba

if os.environ.get("LITRL_BOUNDS_CHECK") == "1":
    numba.config.BOUNDSCHECK = 1  # read by numba whenever it compiles
