"""Slow, obvious twins of the fast code: what it should compute, written for the reader."""

import numpy as np
import torch

from envs.game import CHANCE, TERMINAL


class Strangers:
    """Opponents who play the last legal action, in one seat of the games that began in rows of odd number."""

    def __init__(self, env):
        self.seat = np.where(np.arange(env.num_envs) % 2, 0, -1)  # theirs; -1: the learner has all

    def learner_moves(self, env):
        return env.player != self.seat

    def act(self, env, probs, part):
        for b in np.flatnonzero(~self.learner_moves(env)):
            probs[b] = 0
            probs[b, np.flatnonzero(env.legal[b])[-1]] = 1

    def extras(self, env):
        return {"theirs": torch.from_numpy(self.seat.copy())}

    def stepped(self, env):
        self.seat = np.where(env.done & (self.seat >= 0), 1 - self.seat, self.seat)


def legal_of(game, state):
    legal = np.zeros(game.num_actions, np.bool_)
    game.legal_actions(state, legal)
    return legal


def obs_of(game, state, player):
    obs = np.zeros(game.obs_shape, game.obs_dtype)
    game.observe(state, player, obs)
    return obs


def chance_of(game, state):
    probs = np.zeros(game.num_chance_outcomes)
    game.chance_probs(state, probs)
    return probs


def rewards_of(game, state):
    out = np.zeros(game.num_players)
    game.rewards(state, out)
    return out


def child(game, state, action):
    state = state.copy()
    game.apply_action(state[0], action)
    return state


def action_values(game, policy, state=None, total=None):
    """Expected returns [P] when everybody plays `policy`, {(player, infostate bytes): probs}, by walking the tree."""
    state = game.new_state() if state is None else state
    total = np.zeros(game.num_players) if total is None else total
    player = game.current_player(state[0])
    if player == TERMINAL:
        return total
    if player == CHANCE:
        result = np.zeros(game.num_players)
        for a, p in enumerate(chance_of(game, state[0])):
            if p > 0:
                nxt = child(game, state, a)
                result += p * action_values(game, policy, nxt, total + rewards_of(game, nxt[0]))
        return result
    result = np.zeros(game.num_players)
    probs = policy[player, obs_of(game, state[0], player).tobytes()]
    for a in np.flatnonzero(legal_of(game, state[0])):
        nxt = child(game, state, int(a))
        result += probs[a] * action_values(game, policy, nxt, total + rewards_of(game, nxt[0]))
    return result


def best_response_value(game, policy, responder):
    """Brute force: the best over all deterministic policies of `responder`, by enumeration (Kuhn is small enough)."""
    import itertools

    keys = sorted(k for k in policy if k[0] == responder)
    best = -np.inf
    for choice in itertools.product(range(game.num_actions), repeat=len(keys)):
        mixed = dict(policy)
        for key, a in zip(keys, choice, strict=True):
            mixed[key] = np.eye(game.num_actions)[a]
        best = max(best, action_values(game, mixed)[responder])
    return best


def gae(
    player, played, learner, value, rewards, done, bootstrap, last_value, last_known, gamma, gae_lambda
):  # fmt: skip
    """Per env, per player: gather the learner's decisions in that seat, then the textbook recursion on each chain."""
    num_steps, num_envs, num_players = rewards.shape
    advantages, valid = np.zeros((num_steps, num_envs)), np.zeros((num_steps, num_envs), bool)
    for b in range(num_envs):
        for p in range(num_players):
            mine = [t for t in range(num_steps) if played[t, b] and learner[t, b] and player[t, b] == p]
            for t in mine:
                # everything until the same player's next decision, the game's end or the rollout's end
                earned, u, ended = 0.0, t, False
                while True:
                    earned += rewards[u, b, p]
                    if done[u, b]:
                        ended = True
                        break
                    u += 1
                    if u == num_steps or player[u, b] == p:
                        break
                game_ends = any(done[k, b] for k in range(t, num_steps))
                if not game_ends and not last_known[b].any():
                    continue
                if ended:
                    target = bootstrap[u, b, p]
                elif u < num_steps:
                    target = value[u, b]
                elif last_known[b, p]:
                    target = last_value[b, p]
                else:
                    continue
                advantages[t, b] = earned + gamma * target - value[t, b]
                valid[t, b] = True
            for t in reversed(mine):
                later = [k for k in mine if k > t]
                if valid[t, b] and later and not any(done[k, b] for k in range(t, later[0])) and valid[later[0], b]:
                    advantages[t, b] += gamma * gae_lambda * advantages[later[0], b]
    return advantages, valid


def two_player_v_trace(r, value, ratio, kl, eta, gamma, trace_lambda, rho_bar, c_bar):
    """Per env, per game, per player: the sums and products of the docstring, each written out for each decision."""
    num_steps, num_envs, num_players = r.rewards.shape
    targets, deltas, valid = (np.zeros((num_steps, num_envs)) for _ in range(3))
    ratio, kl = np.where(r.learner, ratio, 1.0), np.where(r.learner, kl, 0.0)  # others are environment
    for b in range(num_envs):
        ends = [t for t in range(num_steps) if r.done[t, b] and r.played[t, b]]
        starts = [min((t for t in range(num_steps) if r.played[t, b]), default=0), *(t + 1 for t in ends)]
        if r.last_known[b].all() and starts[-1] < num_steps:
            ends.append(num_steps - 1)  # the game that goes on after the rollout
        for start, end in zip(starts, ends):
            after_end = r.bootstrap[end, b] if r.done[end, b] else r.last_value[b]
            for p in range(num_players):
                next_value = next_target = float(after_end[p])
                mine = [t for t in range(start, end + 1) if r.player[t, b] == p and r.learner[t, b]]
                until = [*mine[1:], end + 1]
                for t, after in reversed(list(zip(mine, until))):
                    others = range(t + 1, after)
                    rewards = sum(r.rewards[u, b, p] for u in range(t, after))
                    rewards += eta * sum(kl[u, b] for u in others) - eta * kl[t, b]
                    corrected, product = r.rewards[t, b, p], 1.0
                    for u in others:
                        corrected += product * eta * kl[u, b]
                        product *= ratio[u, b]
                        corrected += product * r.rewards[u, b, p]
                    weight = ratio[t, b] * product
                    deltas[t, b] = corrected + gamma * product * next_target - value[t, b]
                    targets[t, b] = value[t, b] + min(rho_bar, weight) * (rewards + gamma * next_value - value[t, b])
                    targets[t, b] += trace_lambda * min(c_bar, weight) * gamma * (next_target - next_value)
                    next_value, next_target = value[t, b], targets[t, b]
                    valid[t, b] = 1
    return targets, deltas, valid.astype(bool)


def regularised_value(game, policy, reference, eta, state=None):
    """Expected returns [P] under `policy` where each player pays eta log(pi / rho) to the other for its own actions."""
    state = game.new_state() if state is None else state
    player = game.current_player(state[0])
    result = np.zeros(game.num_players)
    if player == TERMINAL:
        return result
    if player == CHANCE:
        probs, paid = chance_of(game, state[0]), np.zeros(game.num_chance_outcomes)
    else:
        key = player, obs_of(game, state[0], player).tobytes()
        probs = policy[key]
        with np.errstate(divide="ignore", invalid="ignore"):
            paid = eta * np.log(probs / reference[key])
    for a in np.flatnonzero(probs):
        nxt = child(game, state, int(a))
        after = rewards_of(game, nxt[0]) + regularised_value(game, policy, reference, eta, nxt)
        if player >= 0:
            after[player] -= paid[a]
            after[1 - player] += paid[a]
        result += probs[a] * after
    return result


def conditional_regrets(r, probs, critic, trace_lambda, ratio_cap):
    """Per env, per game, from the end: the formulas of the docstring. Returns regrets, targets, valid, values."""
    num_steps, num_envs, _ = r.rewards.shape
    regrets = np.zeros(probs.shape)
    values, targets, valid = (np.zeros((num_steps, num_envs)) for _ in range(3))
    for b in range(num_envs):
        ends = [t for t in range(num_steps) if r.done[t, b] and r.played[t, b]]
        starts = [min((t for t in range(num_steps) if r.played[t, b]), default=0), *(t + 1 for t in ends)]
        for start, end in zip(starts, ends):
            following = expected = 0.0
            for t in range(end, start - 1, -1):
                if not r.learner[t, b]:
                    following, expected = following + float(r.rewards[t, b, 0]), expected + float(r.rewards[t, b, 0])
                    continue
                a, mu, sign = int(r.action[t, b]), float(r.log_prob[t, b].exp()), 1 - 2 * int(r.player[t, b])
                q = critic[t, b].astype(np.float64)
                value, surprise = probs[t, b] @ q, float(r.rewards[t, b, 0]) + following - q[a]
                corrected = q.copy()
                corrected[a] += surprise / mu
                values[t, b] = sign * (probs[t, b] @ corrected)
                regrets[t, b] = sign * (corrected - probs[t, b] @ corrected) * r.legal[t, b].numpy()
                targets[t, b], valid[t, b] = float(r.rewards[t, b, 0]) + expected, 1
                following = value + trace_lambda * min(ratio_cap, probs[t, b, a] / mu) * surprise
                expected = value
    return regrets, targets, valid.astype(bool), values


def counterfactual_regrets(game, policy, state=None, reach=None, found=None):
    """One iteration of CFR (Zinkevich et al. 2007) by walking the tree: {(player, infostate bytes): regrets [A]}.

    Also the player's own reach under a uniform policy, and under `policy`, per infostate: the values are triples.
    """
    root = state is None
    state = game.new_state() if root else state
    reach = {"chance": 1.0, "own": [1.0, 1.0], "uniform": [1.0, 1.0]} if root else reach
    found = {} if root else found
    player = game.current_player(state[0])
    if player == TERMINAL:
        return np.zeros(game.num_players)
    if player == CHANCE:
        probs, key = chance_of(game, state[0]), None
    else:
        key = player, obs_of(game, state[0], player).tobytes()
        probs = policy[key]
    values = np.zeros((len(probs), game.num_players))
    legal = probs > 0 if player == CHANCE else legal_of(game, state[0])
    for a in np.flatnonzero(legal):
        after = {name: list(x) if name != "chance" else x for name, x in reach.items()}
        if player == CHANCE:
            after["chance"] *= probs[a]
        else:
            after["own"][player] *= probs[a]
            after["uniform"][player] /= legal.sum()
        nxt = child(game, state, int(a))
        values[a] = rewards_of(game, nxt[0]) + counterfactual_regrets(game, policy, nxt, after, found)
    mean = probs @ values
    if player != CHANCE:
        regrets, *_ = found.setdefault(
            key, (np.zeros(game.num_actions), reach["uniform"][player], reach["own"][player])
        )
        regrets += reach["chance"] * reach["own"][1 - player] * np.where(legal, values[:, player] - mean[player], 0)
    return found if root else mean


def seat(began, share, drawn, shares, table, turn, uniform):
    """Who sits where in the rows that begin: the learner (-1) in all seats, or in its turn's.

    `uniform(b)` draws from row b's stream.
    """
    num_seats = table.shape[1]
    for b in np.flatnonzero(began):
        table[b] = -1
        if uniform(b) < share:
            continue
        for s in range(num_seats):
            if s != turn[b]:
                mark = uniform(b) * sum(shares)
                table[b, s] = next(
                    (k for i, k in enumerate(drawn) if mark < sum(shares[: i + 1])), drawn[-1]
                )  # fmt: skip
        turn[b] = (turn[b] + 1) % num_seats


def settle(done, table, team, earned, num_members):
    """The tally [K, S, 7] of the games that ended: wins, draws, losses, returns and their squares against each member's
    team."""
    tally = np.zeros((num_members, table.shape[1], 7))
    for b in np.flatnonzero(done):
        returns = [np.mean([r for r, t in zip(earned[b], team) if t == s]) for s in range(table.shape[1])]
        if (table[b] == -1).all():
            continue
        (mine,) = np.flatnonzero(table[b] == -1)
        for s, member in enumerate(table[b]):
            if s != mine:
                won, lost = returns[mine] > returns[s], returns[mine] < returns[s]
                both = np.array([returns[mine], returns[s]])
                tally[member, mine] += [won, not won and not lost, lost, *both, *both**2]
    return tally
