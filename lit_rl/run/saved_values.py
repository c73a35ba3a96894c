"""Values that come out of a checkpoint, held against what they must be before anything computes with them.

Each function returns the value or raises ArtefactError, whose text names it. A tensor goes by dtype and shape first,
then by range, so that nothing that indexes by it can leave its array.
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from lit_rl.run.errors import ArtefactError

LARGEST = 2**53  # of a counter


def need(ok: bool, what: str) -> None:
    """Raise ArtefactError unless `ok`."""
    if not ok:
        raise ArtefactError(f"checkpoint: {what}; take another checkpoint of the run"[:400])


def saved_dict(value, where: str, keys: Collection[str] | None = None) -> Mapping:
    """A dictionary with text for keys: these, and no others."""
    need(isinstance(value, dict) and all(isinstance(key, str) for key in value), f"{where} is no dictionary of names")
    if keys is not None:
        wrong = sorted(value.keys() ^ set(keys))
        need(not wrong, f"{where} should have {sorted(keys)}, differs in {[name[:50] for name in wrong[:5]]}")
    return value


def saved_list(value, where: str, size: int | None = None) -> list:
    """A list, of that size."""
    need(isinstance(value, list), f"{where} is {type(value).__name__}, needs a list")
    need(size is None or len(value) == size, f"{where} has {len(value)} entries, needs {size}")
    return value


def saved_int(value, where: str, at_least: int = 0, at_most: int = LARGEST) -> int:
    """A whole number of that range."""
    need(
        type(value) is int and at_least <= value <= at_most,
        f"{where} is {str(value)[:50]}, needs {at_least} to {at_most}",
    )
    return value


def saved_float(value, where: str, at_least: float = -math.inf, at_most: float = math.inf) -> float:
    """A finite number of that range."""
    ok = type(value) in (int, float) and abs(value) <= 1e308 and at_least <= value <= at_most
    need(ok, f"{where} is {str(value)[:50]}, needs a finite number from {at_least} to {at_most}")
    return float(value)


def saved_text(value, where: str, most: int = 500) -> str:
    """A text, not longer than that."""
    need(
        type(value) is str and len(value) <= most, f"{where} is {type(value).__name__}, needs a text of {most} at most"
    )
    return value


def saved_tensor(
    value,
    where: str,
    dtype: torch.dtype,
    shape: tuple[int | None, ...],
    at_least: float | None = None,
    at_most: float | None = None,
) -> Tensor:
    """A plain tensor of that dtype and shape (None: any size), finite and of that range, with memory of its own."""
    need(type(value) is Tensor and value.layout == torch.strided, f"{where} is {type(value).__name__}, needs a tensor")
    fits = value.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, value.shape))
    need(
        value.dtype == dtype and fits,
        f"{where} is {value.dtype} {list(value.shape)[:8]}, needs {dtype} {['any' if n is None else n for n in shape]}",
    )
    value = value.detach().cpu().contiguous().clone()
    if dtype == torch.bool:
        bits = value.view(torch.uint8)
        need(not value.numel() or int(bits.max()) <= 1, f"{where} has bytes that are neither true nor false")
        return value
    if value.numel():
        low, high = value.min().item(), value.max().item()
        need(not dtype.is_floating_point or (math.isfinite(low) and math.isfinite(high)), f"{where} is not finite")
        need(at_least is None or low >= at_least, f"{where} has {low}, needs at least {at_least}")
        need(at_most is None or high <= at_most, f"{where} has {high}, needs at most {at_most}")
    return value


def saved_like(kept: Mapping, kinds: Mapping[str, torch.dtype], shape: torch.Size) -> list[Tensor]:
    """The tensors of those names and dtypes that were kept of a rollout of that shape [T, B]."""
    found = [kept.get(name) for name in kinds]
    fits = [isinstance(x, Tensor) and (x.dtype, x.shape) == (kind, shape) for x, kind in zip(found, kinds.values())]
    need(all(fits), "kept is not of the rollout beside it")
    return found


def saved_legal(value, where: str, num_rows: int | None, num_actions: int) -> Tensor:
    """Legal actions [N, A] bool; every row has one."""
    legal = saved_tensor(value, where, torch.bool, (num_rows, num_actions))
    need(bool(legal.any(1).all()), f"{where} has a row without a legal action")
    return legal


def like(value, here, where: str):
    """`value`, if it is built as `here`: the same types, keys and shapes; whole numbers from 0 on, finite floats."""
    if isinstance(here, dict):
        need(isinstance(value, dict) and value.keys() == here.keys(), f"{where} has not the keys it should have")
        for key in here:
            like(value[key], here[key], f"{where}.{key}")
    elif isinstance(here, list | tuple):
        need(
            type(value) is type(here) and len(value) == len(here),
            f"{where} is not a {type(here).__name__} of {len(here)}",
        )
        for i, item in enumerate(here):
            like(value[i], item, f"{where}[{i}]")
    elif isinstance(here, Tensor):
        saved_tensor(value, where, here.dtype, tuple(here.shape))
    elif type(here) is int:
        saved_int(value, where)
    elif type(here) is float:
        saved_float(value, where)
    elif here is not None:
        need(type(value) is type(here), f"{where} is {type(value).__name__}, needs {type(here).__name__}")
    return value
