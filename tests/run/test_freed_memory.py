"""Freed memory stays with the process: what is asked for again needs no new pages."""

import subprocess
import sys

import pytest

from lit_rl.run.freed_memory import keep_freed_memory

SCRIPT = """
import resource, torch
from lit_rl.run.freed_memory import keep_freed_memory
keep_freed_memory()
convolution = torch.nn.Conv2d(32, 32, 3, padding=1)
for i in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    convolution(torch.ones(512, 32, 9, 9)).relu().square().sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_blocks_are_used_again():
    if not keep_freed_memory():
        pytest.skip("malloc is not glibc's")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000  # pages; 5,000 without
