"""Reading what torch.save has written, by whomever: plain data, and never more memory than the file's own size.

torch.save stores its records as they are. So a record that is compressed, or records that are together larger than
their file, are no work of torch's but a bomb, and refused before anything is unpacked.
"""

import math
import re
import reprlib
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from lit_rl.run.errors import ArtefactError


def load_plain(path: Path, what: str, map_location=None):
    """The plain data in the file `path`, which is to be a `what`: checkpoint, player file.

    Tensors are on the CPU if nothing else is said.

    Raises:
        ArtefactError: it is none.
    """
    check_archive(path, what)
    try:
        return torch.load(path, weights_only=True, map_location=map_location or "cpu")
    except Exception as error:  # whatever a damaged file makes the unpickler stumble over
        raise ArtefactError(f"{what} {path}: cannot be loaded ({first_line(error)}); take another") from error


def check_archive(path: Path, what: str) -> None:
    """Look at the sizes that the file's directory gives.

    Raises:
        ArtefactError: no archive of torch.save's, or a bomb.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception as error:
        raise ArtefactError(f"{what} {path}: is none ({first_line(error)}); take another") from error
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED:
            raise ArtefactError(
                f"{what} {path}: its record {record.filename[:200]} is compressed, to {record.file_size} bytes when "
                "unpacked, as torch.save never does; take another"
            )
    total = sum(record.file_size for record in records)
    if total > size:
        raise ArtefactError(f"{what} {path}: its records are to be {total} bytes, the file has {size}; take another")


def check_tensors(state: dict, most: int, where: str) -> None:
    """Hold the tensors of a state_dict against what their file can hold, `most` bytes.

    Raises:
        ArtefactError: something else than dense tensors of finite numbers on the CPU, or they are larger than what they
            are made of.
    """
    if not isinstance(state, dict):
        raise ArtefactError(f"{where}: state_dict is a {type(state).__name__}, not a dictionary; take another")
    total = 0
    for name, x in state.items():
        if not isinstance(name, str) or not isinstance(x, Tensor):
            raise ArtefactError(f"{where}: {cut(name)} is a {type(x).__name__}, not a tensor; take another")
        if x.layout != torch.strided or x.device.type != "cpu" or x.is_quantized:
            raise ArtefactError(f"{where}: {name[:200]} is no dense tensor; take another")
        wanted = math.prod(x.shape) * x.element_size()
        if wanted > x.untyped_storage().nbytes():
            raise ArtefactError(
                f"{where}: {name[:200]} of shape {tuple(x.shape)} needs {wanted} bytes, the file has "
                f"{x.untyped_storage().nbytes()} for it; take another"
            )
        total += wanted
        if x.is_floating_point() and wanted and not math.isfinite(float(x.detach().abs().max())):
            raise ArtefactError(f"{where}: {name[:200]} holds NaN or an infinity; take another")
    if total > 4 * most:  # layers that are shared stand in the file once
        raise ArtefactError(f"{where}: its tensors need {total} bytes, the file has {most}; take another")


def first_line(error: Exception) -> str:
    """What an error says, in a line of 200 characters at most."""
    if "Weights only load failed" in str(error):
        found = re.search(r"GLOBAL (\S+)", str(error))
        return f"it holds {found[1][:150]}, which is no plain data" if found else "it is damaged, or holds code"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def cut(value) -> str:
    """At most 200 characters of what a file says, which may be nested without end."""
    try:
        return (value if isinstance(value, str) else reprlib.repr(value))[:200]
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__
