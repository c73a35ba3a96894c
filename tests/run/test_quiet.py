"""What a run keeps to itself: known chatter of its libraries, and nothing else."""

import logging
import warnings

from lit_rl.run.quiet import WARNINGS, quiet


def test_quiet_hides_chatter_alone(caplog):
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            with quiet():
                log.warning("GPU available: False")
            log.warning("GPU available: False")
            log.warning("the disk is full")
            warnings.warn(WARNINGS[0].strip(".*"), stacklevel=1)
            warnings.warn("something new", stacklevel=1)
        log.warning("GPU available: True")
    assert [str(w.message) for w in heard] == ["something new"]
    assert [r.getMessage() for r in caplog.records] == ["the disk is full", "GPU available: True"]
