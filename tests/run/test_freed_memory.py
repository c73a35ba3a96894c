"""Freed memory stays with the process: what is asked for again needs no new pages."""

import subprocess
import sys

import pytest

from lit_rl.run.freed_memory import keep_freed_memory

SCRIPT = """
import resource, sys, torch
from lit_rl.run.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
convolution, pages = torch.nn.Conv2d(32, 32, 3, padding=1), []
for i in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    convolution(torch.ones(512, 32, 9, 9)).relu().square().sum().backward()
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(pages)[len(pages) // 2])
"""


def new_pages(how: str) -> int:
    """Of a pass forward and backward, in the median."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_blocks_are_used_again():
    if not keep_freed_memory():
        pytest.skip("malloc is not glibc's")
    assert new_pages("kept") < new_pages("given back") / 2
