"""Exported policies for programs without lit-rl: as `torch.export` program (*.pt2) or as ONNX (*.onnx).

    export_policy(lit_rl.load_policy("runs/version_0/checkpoints/last.ckpt"), "leduc.onnx")

Inputs: obs [N, *D] of the game's dtype, legal [N, A] bool, and of a policy with a memory state [N, *S] float32, zeros
as a game begins. Outputs: logits [N, A], illegal actions at -1e30, value [N], and the next state [N, *S]. N is any.
"""

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from envs.extras import need_extra
from envs.game import Game
from envs.openspiel import OpenSpielEnv, OpenSpielGame
from envs.vector_env import VectorEnv
from lit_rl.league.game_policy import GamePolicy
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.errors import ConfigError

TOLERANCE = 1e-5  # between what the file says and what the policy does, absolute and relative
ROWS, STEPS = 64, 20  # infostates that are compared: so many games after so many random decisions


class _Plain(nn.Module):
    """A policy whose output is a tuple of tensors."""

    def __init__(self, network: nn.Module, remembers: bool):
        super().__init__()
        self.network, self.remembers = network, remembers

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> tuple[Tensor, ...]:
        output = self.network(obs, legal, state) if self.remembers else self.network(obs, legal)
        return (output.logits, output.value, output.state) if self.remembers else (output.logits, output.value)


def export_policy(policy: GamePolicy, path: str | Path) -> float:
    """Write the policy to `path`, once what is written has been run and agrees; the largest difference found.

    Args:
        policy: of `lit_rl.load_policy` or `lit_rl.league.game_policy.policy_of`.
        path: ends with .pt2 for a program that `torch.export.load` takes, or with .onnx.

    Raises:
        ConfigError: another ending; a network that torch cannot export; one that says something else once exported.
        ModuleNotFoundError: ONNX is not installed.
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".onnx"):
        raise ConfigError(f"export_policy: {path}: let it end with .pt2 (torch.export) or .onnx")
    if path.suffix == ".onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            need_extra(library, "onnx")
    seen = _infostates(policy)
    plain = _Plain(policy.network, len(seen) == 3).eval()
    names = ["obs", "legal", "state"][: len(seen)]
    kind = type(policy.network).__name__
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own, of its insides
        try:
            size = torch.export.Dim("N")
            program = torch.export.export(plain, seen, dynamic_shapes={name: {0: size} for name in names})
            content = _onnx(program, names) if path.suffix == ".onnx" else _pt2(program)
        except Exception as error:
            said = (str(error).splitlines() or [""])[0][:200]
            raise ConfigError(f"export_policy: torch cannot export {kind} ({type(error).__name__}: {said})") from error
        some = tuple(x[:5] for x in seen)  # another N than the one that it was traced with
        worst = max(_difference(plain, content, path.suffix, names, rows) for rows in (seen, some))
    if not worst <= TOLERANCE:
        raise ConfigError(
            f"export_policy: {kind} says something else once exported, by {worst:.3g}; nothing is written"
        )
    replace_file(path, content)
    return worst


def _infostates(policy: GamePolicy) -> tuple[Tensor, ...]:
    """Inputs of the policy in positions of random play."""
    game, memory = policy.game, tuple(getattr(policy.network, "state_shape", ()))
    if isinstance(game, Game):
        env = VectorEnv(game, ROWS, 0)
    elif isinstance(game, OpenSpielGame):
        env = OpenSpielEnv(game, ROWS, 0)
    else:
        raise ConfigError(f"export_policy: {game.name}: its rules are not written here, so nothing can be compared")
    for _ in range(STEPS):
        env.step(env.sample(env.legal.astype(np.float32)))
    seen = torch.from_numpy(env.obs.copy()), torch.from_numpy(env.legal.copy())
    return (*seen, torch.zeros(ROWS, *memory)) if memory else seen


def _pt2(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram, names: list[str]) -> bytes:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        outputs = ["logits", "value", "next_state"][: len(names)]
        found = torch.onnx.export(program, dynamo=True, input_names=names, output_names=outputs, verbose=False)
    finally:
        log.setLevel(level)
    return found.model_proto.SerializeToString()


def _difference(plain: nn.Module, content: bytes, suffix: str, names: list[str], rows: tuple[Tensor, ...]) -> float:
    """How far the outputs of what is to be written are from the policy's, each in units of 1 or of its own size."""
    expected = plain(*rows)
    if suffix == ".pt2":
        found = torch.export.load(io.BytesIO(content)).module()(*rows)
    else:
        runtime = need_extra("onnxruntime", "onnx")
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(x) for x in session.run(None, {n: x.numpy() for n, x in zip(names, rows)})]
    return max(float(((a - b).abs() / b.abs().clamp_min(1.0)).max()) for a, b in zip(found, expected))
