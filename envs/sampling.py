"""Drawing actions: one pass over the legal ones of each row, from logits or from probabilities.

Letters: B envs, A actions, W bytes of legal bits (`envs.bits`).
"""

import math

import numpy as np

from envs.bits import unpack
from envs.env import ALL_ROWS, Env, NoLegalActionError
from envs.jit import njit
from envs.rng import uniform


def draw(
    env: Env,
    values: np.ndarray,
    legal_bits: np.ndarray,
    *,
    is_probs: np.ndarray | None = None,
    temperature: float = 1.0,
    exploration: np.ndarray | None = None,
    part: slice = ALL_ROWS,
) -> tuple[np.ndarray, np.ndarray]:
    """An action for each row of an `Env`, by inverse CDF with one number of its action stream, and its log-probability.

    Args:
        values: [B, A] float32, logits; of illegal actions anything.
        legal_bits: [B, W], which actions are legal.
        is_probs: [B] bool, the rows whose values are probabilities (need not be normalised); null: none.
        temperature: logits are divided by it.
        exploration: [B] float32: so often a uniform draw from the legal actions takes the place of the logits'.
        part: rows of the env that B stands for here; all of them by default.

    Returns:
        action [B] int64, log_prob [B] float32, of the distribution drawn from.

    Raises:
        NoLegalActionError: a row has no legal action, so its game's rules are wrong.
        FloatingPointError: a row is not finite or has no mass on a legal action.
    """
    num_envs, num_actions = values.shape
    action, log_prob = np.empty(num_envs, np.int64), np.empty(num_envs, np.float32)
    is_probs = np.zeros(num_envs, np.bool_) if is_probs is None else is_probs
    exploration = np.zeros(num_envs, np.float32) if exploration is None else exploration
    bad = _draw(
        values, legal_bits, is_probs, float(temperature), exploration, env.action_streams[part],
        np.empty(num_actions, np.int64), np.empty(num_actions), action, log_prob,
    )  # fmt: skip
    if bad >= 0:
        legal = np.flatnonzero(unpack(legal_bits[bad : bad + 1], num_actions)[0]).tolist()
        where = f"{env.game.name}, env row {bad + (part.start or 0)}"
        if not legal:
            raise NoLegalActionError(f"{where}: player {env.player[part][bad]} has no legal action")
        kind = "probs" if is_probs[bad] else "logits"
        some = values[bad, legal[:20]].tolist()
        raise FloatingPointError(f"{where}: cannot sample from {kind}={some} of the legal actions {legal[:20]}")
    return action, log_prob


@njit(nogil=True, error_model="numpy")
def _draw(values, legal_bits, is_probs, temperature, exploration, streams, ids, mass, action, log_prob):
    """The first row that cannot be drawn from, or -1. ids [A] and mass [A] are scratch."""
    for b in range(len(action)):
        count = 0
        for w in range(legal_bits.shape[1]):
            byte = legal_bits[b, w]
            if byte:
                for k in range(8):
                    if (byte >> k) & 1:
                        ids[count] = 8 * w + k
                        count += 1
        if count == 0:
            return b
        total = 0.0
        if is_probs[b]:
            for i in range(count):
                mass[i] = values[b, ids[i]]
                total += mass[i]
        else:
            largest = -np.inf
            for i in range(count):
                largest = max(largest, values[b, ids[i]])
            for i in range(count):
                mass[i] = math.exp((values[b, ids[i]] - largest) / temperature)
                total += mass[i]
        if not (total > 0.0 and total < np.inf):
            return b
        if exploration[b] > 0.0:
            for i in range(count):
                mass[i] = (1.0 - exploration[b]) * mass[i] / total + exploration[b] / count
            total = 1.0
        threshold = uniform(streams, b) * total
        cumulated, chosen = 0.0, 0
        for i in range(count):
            cumulated += mass[i]
            chosen += cumulated <= threshold
        while chosen == count or mass[chosen] <= 0.0:
            chosen -= 1  # only where rounding left the threshold above the sum
        action[b] = ids[chosen]
        log_prob[b] = math.log(mass[chosen] / total)
    return -1
