"""Plain data with one thing changed: any value, key or byte, by something that a stranger might put there."""

import random

import numpy as np
import torch
from torch import Tensor

EVIL = "evil.Net"  # a module whose import leaves a mark


def leaves(value, path=()):
    """(path, value) of all that is no container with something in it."""
    if isinstance(value, dict | list | tuple) and len(value):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def at(value, path):
    for key in path:
        value = value[key]
    return value


def mutated(value, rng: random.Random, others: list):
    """(what was done, another value in the place of `value`)."""
    kinds = [("none", None), ("text", "x"), ("number", 7), ("list", []), ("dict", {}), ("huge", 2**62), ("below", -3)]
    kinds += [("evil", EVIL), ("evil class", {"class_path": EVIL, "init_args": {}})]
    if isinstance(value, Tensor):
        kinds += tensor_kinds(value, rng)
        same = [x for x in others if isinstance(x, Tensor) and x.dtype == value.dtype and x.shape == value.shape]
        same = [x for x in same if not torch.equal(x, value)]
        if same:
            kinds += [("swapped", rng.choice(same).clone())] * 3
    elif isinstance(value, bytes):
        data = bytearray(value)
        if data:
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.randrange(256)
            kinds += [("flipped", bytes(data)), ("random", rng.randbytes(len(data))), ("ones", b"\xff" * len(data))] * 3
        kinds += [("short", value[:-1]), ("long", value + b"\0")]
    elif isinstance(value, str):
        kinds += [("longer", value + "x"), ("shorter", value[:-1]), ("endless", "x" * 100_000), ("no UTF-8", "\udcff")]
    elif isinstance(value, int | float):
        kinds += [("negative", -value - 1), ("next", value + 1), ("nan", float("nan")), ("inf", float("inf"))] * 2
    return rng.choice(kinds)


def tensor_kinds(value: Tensor, rng: random.Random) -> list:
    kinds = [
        ("dtype", value.to(torch.int32 if value.dtype != torch.int32 else torch.float64)),
        ("wider", value[..., None]),
    ]
    if value.ndim:
        kinds += [("row lost", value[:-1]), ("rows doubled", torch.cat([value, value]))]
        kinds += [("sparse", value.to_sparse())]
    if value.numel():
        changed = value.clone().reshape(-1)
        i = rng.randrange(len(changed))
        if value.dtype == torch.bool:
            changed[i] = ~changed[i]
            kinds += [("flipped", changed.view(value.shape))] * 4
            odd = value.clone()
            odd.view(torch.uint8).reshape(-1)[i] = 77
            kinds += [("odd bool", odd)]
            return kinds
        if value.is_floating_point():
            extremes = (float("nan"), float("inf"), -1e30, 1e30, -1.0, 2.0)
        else:
            extremes = (torch.iinfo(value.dtype).max, torch.iinfo(value.dtype).min, 1, 2)
        for extreme in extremes:
            one = changed.clone()
            one[i] = extreme
            kinds += [(f"one {extreme}", one.view(value.shape)), (f"all {extreme}", torch.full_like(value, extreme))]
        bits = np.random.default_rng(rng.randrange(2**32)).bytes(value.numel() * value.element_size())
        kinds += [("random bytes", torch.frombuffer(bytearray(bits), dtype=value.dtype).view(value.shape))]
        kinds += [("permuted", changed[torch.randperm(len(changed))].view(value.shape))] * 2
    return kinds


def tampered(content, parts: list, rng: random.Random) -> tuple[tuple, str, object]:
    """(path, what was done there, the content so changed in one of `parts`); what is not on the path is shared."""
    part = rng.choice(parts)
    everything = list(leaves(content[part], (part,)))
    path, value = rng.choice(everything)
    if rng.random() < 0.15:  # a key too few or too many, at any height
        path = path[: rng.randrange(1, len(path))] if len(path) > 1 else path
        target = at(content, path)
        if isinstance(target, dict) and target:
            lost = rng.choice(sorted(target, key=str))
            fewer = {key: x for key, x in target.items() if key != lost}
            changed = fewer if rng.random() < 0.6 else target | {"more": 1}
            return (*path, lost if lost not in changed else "more"), "keys", replaced(content, path, changed)
        return path, "gone", replaced(content, path, None)
    what, new = mutated(value, rng, [x for _, x in everything])
    return path, what, replaced(content, path, new)


def flipped(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, other bytes of a file)."""
    changed, at = bytearray(data), rng.randrange(len(data))
    kind = rng.choice(["bit", "bit", "bytes", "cut", "zeros", "junk", "twice"])
    if kind == "bit":
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        for _ in range(8):
            changed[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "cut":
        del changed[at:]
    elif kind == "zeros":
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    elif kind == "junk":
        changed[at : at + 16] = rng.randbytes(16)
    else:
        changed[at:at] = data[at : at + rng.randrange(1, 500)]
    return kind, bytes(changed)


def replaced(value, path, new):
    if not path:
        return new
    if isinstance(value, dict):
        return {key: replaced(x, path[1:], new) if key == path[0] else x for key, x in value.items()}
    items = [replaced(x, path[1:], new) if i == path[0] else x for i, x in enumerate(value)]
    return type(value)(items)


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
