"""A run without the chatter of its libraries: what they say at every fit and nobody can act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = (
    ".*LeafSpec.*",  # torch 2.13 with lightning 2.6.6 warns of its own internals at every fit
    ".*in eval mode at the start of training.*",  # averages and frozen networks are meant to be
    ".*does not have many workers.*",  # our loaders are no DataLoaders
    ".*`EvaluationJobs` across ranks is zero.*",  # data.evaluation=[] means it
    ".*is smaller than the logging interval.*",  # we log per iteration, not per batch
    ".*recommended to use `self.log\\(.*sync_dist=True.*",  # rank 0 logs its own clock on purpose
)
LINES = (
    "💡", "`weights_only` was not set", "TPU available", "GPU available", "`Trainer.fit` stopped: `max_epochs=",
    "Restoring states from the checkpoint", "Restored all states from the checkpoint",
    "Loaded model weights from the checkpoint",
)  # fmt: skip
LOGGERS = ("utilities.rank_zero", "trainer.connectors.checkpoint_connector")


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LINES)


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, none of `WARNINGS` is shown and none of `LINES` is logged; everything else is."""
    loggers = [logging.getLogger(f"lightning.pytorch.{name}") for name in LOGGERS]
    added = [logger for logger in loggers if _is_news not in logger.filters]  # the outermost takes them off again
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in added:
            logger.addFilter(_is_news)
        try:
            yield
        finally:
            for logger in added:
                logger.removeFilter(_is_news)
