"""Freed memory stays with the process.

Networks over boards free and ask for megabytes at each operation. glibc hands such blocks back to the kernel at once,
and gets them again page by page, a third of a rollout's time in shogi (configs/LOG.md). Other C libraries stay as they
are.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT = 512 * 2**20  # bytes at the heap's end that are kept
FROM_HEAP = 32 * 2**20  # bytes of the largest block that is taken from the heap, the most that glibc allows


def keep_freed_memory() -> bool:
    """Keep up to half a GiB of what is freed for what is asked for next; False where malloc is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, KEPT)) and bool(mallopt(M_MMAP_THRESHOLD, FROM_HEAP))
