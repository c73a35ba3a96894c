"""Ten opponents for Beasty Bar, for `envs.beasty_bar` and `envs.beasty_bar.documents` alike.

All but `random` look one play ahead: each legal play is made on a copy of what they know, the position after it is
scored, and one of the best plays is taken, each as likely where scores are equal.

    random                 any legal action
    heuristic              material, and what each animal's play is good for
    aggressive, defensive  the bar counts 3.0 and 1.0 instead of 2.0
    queue                  the front of the queue counts 2.0 instead of 1.1
    skunk                  skunks count twice
    noisy                  heuristic, a normal error of 0.15 on each score
    online                 material, and the advice that players give each other
    outcome_heuristic      what the play changes in bar, hell and queue
    distilled_outcome      the same with weights fitted to a trained policy

They do not see the card that they will draw. One who did would play the same: whatever the play, that card comes to the
same hand, so it adds the same to every score. The documents' *aggression* adds the same to every score, too, and is
left out for it. `noisy` draws nothing itself: it writes how likely each play is to come out best, so that the action
stream of an env, which replays, is all its randomness.

Readings: "before" and "after" are the whole turn, with the five in the queue. What only says "in the queue" is meant
before the play in `online`, and after it for zebra, lion, kangaroo and giraffe in `heuristic`. A chameleon's play
counts as a chameleon's, whatever it copies. Species of which a skunk expels two are counted without skunks.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from envs.beasty_bar.documents import play_of
from envs.beasty_bar.rules import (
    CHAMELEON,
    CROCODILE,
    GIRAFFE,
    HIPPO,
    KANGAROO,
    LION,
    MONKEY,
    NUM_PLAYS,
    PARROT,
    PLAYS,
    POINTS,
    SEAL,
    SKUNK,
    SNAKE,
    STATE,
    ZEBRA,
    owner_of,
    play,
    species_of,
    two_strongest,
    unplayed,
)
from envs.heuristics import uniform as random

EQUAL = 1e-6  # scores that differ by less are equal
SIGMA = 0.15  # of the noise
PLACES = np.array([0.53, 0.37, 0.25, 0.27, 0.10])  # worth of a place in the queue, for outcomes


class Material(NamedTuple):
    """Worth of a point by where it is; the other player's count against it, but in the hand."""

    bar: float = 2.0
    front: float = 1.1
    back: float = 0.3
    hell: float = -0.5
    hand: float = 0.1
    skunk: float = 1.0  # factor for skunks


class Outcome(NamedTuple):
    """Worth of what a play changes."""

    my_bar: float
    other_bar: float
    my_hell: float
    other_hell: float
    queue: float
    front: float
    threat: float
    parrot: float
    skunk: float
    monkey: float
    early: float
    late: float


@njit
def _points(cards, first, last, owner):
    """Points of the owner's cards in cards[first:last]."""
    points = 0
    for i in range(first, last):
        points += POINTS[species_of(cards[i])] * (owner_of(cards[i]) == owner)
    return points


@njit
def _gained(before, after, owner):
    return _points(after.bar, before.num_bar, after.num_bar, owner)


@njit
def _lost(before, after, owner):
    return _points(after.hell, before.num_hell, after.num_hell, owner)


@njit
def _waits(state, owner, species):
    """The owner's animal of a species is in the queue."""
    return _place(state, owner, species) < state.num_queue


@njit
def _place(state, owner, species):
    """Where in the queue the owner's animal of a species is; its length if nowhere."""
    for i in range(state.num_queue):
        if species_of(state.queue[i]) == species and owner_of(state.queue[i]) == owner:
            return i
    return state.num_queue


@njit
def _worth(card, me, skunk):
    """Points of a card, the other player's negative, those of skunks times a factor."""
    species = species_of(card)
    sign = 1.0 if owner_of(card) == me else -1.0
    return sign * POINTS[species] * (skunk if species == SKUNK else 1.0)


@njit
def _material(before, after, me, weights):
    """But for what was in bar and hell before, which is the same for all plays."""
    score = 0.0
    for i in range(before.num_bar, after.num_bar):
        score += weights.bar * _worth(after.bar[i], me, weights.skunk)
    for i in range(before.num_hell, after.num_hell):
        score += weights.hell * _worth(after.hell[i], me, weights.skunk)
    for i in range(after.num_queue):
        back = i / after.num_queue
        score += (weights.front * (1.0 - back) + weights.back * back) * _worth(after.queue[i], me, weights.skunk)
    for i in range(after.num_hand[me]):
        species = after.hand[me, i]
        score += weights.hand * POINTS[species] * (weights.skunk if species == SKUNK else 1.0)
    return score


@njit
def _good_for(before, after, me, number):
    """What the play of an animal is good for besides."""
    other, species = 1 - me, PLAYS[number, 0]
    if species == SKUNK:
        theirs = _lost(before, after, other)
        if theirs >= 5:
            return 3.0
        if theirs >= 3:
            return 1.5
        return -2.0 if theirs == 0 and _lost(before, after, me) > 0 else 0.0
    if species == PARROT:
        return -0.5 * _worth(before.queue[PLAYS[number, 2]], me, 1.0)
    if species == LION:
        return 2.0 if after.num_queue > 0 and _place(after, me, LION) == 0 else 0.0
    if species == MONKEY:
        return 2.5 if _lost(before, after, other) >= 4 else 0.0
    if species == SEAL:
        mine, theirs = _gained(before, after, me), _gained(before, after, other)
        return 1.5 if mine > theirs else -1.0 if mine < theirs else 0.0
    if species == SNAKE:
        if _mine(after, me, after.num_queue) <= _mine(before, me, before.num_queue):
            return 0.0
        return 0.5 * _points(after.queue, 0, min(2, after.num_queue), me)
    if species == ZEBRA:
        return 1.5 if _waits(after, other, HIPPO) or _waits(after, other, CROCODILE) else -0.5
    if species == KANGAROO:
        return 1.0 if _place(after, me, KANGAROO) < min(2, after.num_queue) else 0.0
    if species == GIRAFFE:
        place = _place(after, me, GIRAFFE)
        return 0.0 if place == after.num_queue or place > 1 else 0.5 if place == 1 else 1.5
    if species == CROCODILE:
        return 0.3 * _lost(before, after, other)
    if species == CHAMELEON:
        return 0.1 * (PLAYS[number, 1] + 1)
    return 0.0


@njit
def _mine(state, me, places):
    """How many of the first places of the queue are mine."""
    count = 0
    for i in range(min(places, state.num_queue)):
        count += owner_of(state.queue[i]) == me
    return count


@njit
def _advice(before, me, number):
    """What players advise each other."""
    other, species = 1 - me, PLAYS[number, 0]
    if species == CROCODILE:
        if _waits(before, me, CHAMELEON) or _waits(before, other, CHAMELEON):
            return 5.0
        return -1.0 if (unplayed(before, other) >> CHAMELEON) & 1 else 0.0
    if species == SKUNK:
        first, second = two_strongest(before, before.num_queue)
        if second == SKUNK:
            return -1.5
        net = 0.0
        for i in range(before.num_queue):
            if species_of(before.queue[i]) in (first, second):
                net -= _worth(before.queue[i], me, 1.0)
        return 4.0 if net >= 4 else 2.0 if net >= 2 else -3.0 if net <= -2 else 0.0
    if species == LION:
        if _waits(before, other, LION):
            return -5.0
        return -2.0 if (unplayed(before, other) >> LION) & 1 else 3.0
    if species == PARROT:
        target = PLAYS[number, 2]
        worth = -_worth(before.queue[target], me, 1.0)
        return 0.3 * worth + 2.0 * (1.0 - target / before.num_queue) if worth > 0 else 0.5 * worth
    return 0.0


@njit
def _is_threat(species):
    return species in (CROCODILE, HIPPO, LION, ZEBRA, GIRAFFE)


@njit
def _recurs(species):
    return species in (HIPPO, CROCODILE, GIRAFFE)


@njit
def _threats(state, owner):
    count = 0
    for i in range(state.num_queue):
        count += _is_threat(species_of(state.queue[i])) and owner_of(state.queue[i]) == owner
    return count


@njit
def _queue_value(state, me):
    value = 0.0
    for i in range(state.num_queue):
        worth = _worth(state.queue[i], me, 1.0)
        value += PLACES[i] * (worth if worth > 0 else 0.6 * worth)
    return value


@njit
def _outcome(before, after, me, number, weights):
    """What the play changes."""
    other, species = 1 - me, PLAYS[number, 0]
    my_lost, other_lost = _lost(before, after, me), _lost(before, after, other)
    score = weights.my_bar * _gained(before, after, me) + weights.other_bar * _gained(before, after, other)
    score += weights.my_hell * my_lost + weights.other_hell * other_lost
    score += weights.queue * (_queue_value(after, me) - _queue_value(before, me))
    score += weights.front * (_mine(after, me, 2) > 0)
    score += weights.threat * (_threats(before, other) - _threats(after, other))
    if species == PARROT:
        place = PLAYS[number, 2]
        target, worth = species_of(before.queue[place]), -_worth(before.queue[place], me, 1.0)
        if worth > 0:
            score += weights.parrot * worth + 1.5 * _is_threat(target) + 1.0 * _recurs(target)
            score += 0.5 * (1.0 - place / before.num_queue)
        else:
            score += 0.8 * worth
    elif species == SKUNK:
        score += weights.skunk * (other_lost - my_lost)
    elif species == MONKEY:
        giants = 0  # hippo and crocodile, fewer than before
        for giant in (HIPPO, CROCODILE):
            giants += 1 * _waits(before, other, giant) - 1 * _waits(after, other, giant)
        score += weights.monkey * (giants > 0) + 0.8 * weights.monkey * _waits(before, other, MONKEY)
    if before.turn <= 3 and _recurs(species):
        score += weights.early
    if before.turn >= 8 and species in (PARROT, SKUNK, CROCODILE):
        score += weights.late
    return score


def _by_material(weights: Material, good_for: bool = True, advice: bool = False):
    @njit
    def score(before, after, me, number):
        found = _material(before, after, me, weights)
        if good_for:
            found += _good_for(before, after, me, number)
        if advice:
            found += _advice(before, me, number)
        return found

    return score


def _by_outcome(weights: Outcome):
    @njit
    def score(before, after, me, number):
        return _outcome(before, after, me, number, weights)

    return score


@njit
def _best(scores, best, probs):
    """One of the best, each as likely."""
    count = 0
    for a in range(len(scores)):
        count += scores[a] > best - EQUAL
    for a in range(len(scores)):
        if scores[a] > best - EQUAL:
            probs[a] = 1.0 / count


@njit
def _best_with_noise(scores, best, probs):
    """How likely each score is to be the largest with a normal error on each, by the trapezoidal rule.

    P(a) = integral of density_a(x) * product of P(score_b < x) over the others b. Actions 8 sigma behind never win.
    """
    total = 0.0
    for k in range(-20, 25):
        x, all_below = best + 0.25 * k * SIGMA, 1.0
        for a in range(len(scores)):
            if scores[a] > best - 8.0 * SIGMA:
                all_below *= 0.5 * math.erfc((scores[a] - x) / (SIGMA * math.sqrt(2.0)))
        for a in range(len(scores)):
            if scores[a] > best - 8.0 * SIGMA:
                z = (x - scores[a]) / SIGMA
                mass = math.exp(-0.5 * z * z) * all_below / (0.5 * math.erfc(-z / math.sqrt(2.0)))
                probs[a] += mass
                total += mass
    for a in range(len(scores)):
        probs[a] /= total


def _one_ply(score, choose=_best):
    """The opponent that makes each legal play on a copy and chooses by the scores."""

    @njit
    def heuristic(state, player, legal, probs):
        after, scores, best = np.empty(1, STATE), np.full(len(legal), -np.inf), -np.inf
        for a in range(len(legal)):
            if legal[a]:
                number = a if len(legal) == NUM_PLAYS else play_of(state, a)
                after[0] = state
                play(after[0], number)
                scores[a] = score(state, after[0], player, number)
                best = max(best, scores[a])
        choose(scores, best, probs)

    return heuristic


heuristic = _one_ply(_by_material(Material()))
aggressive = _one_ply(_by_material(Material(bar=3.0)))
defensive = _one_ply(_by_material(Material(bar=1.0)))
queue = _one_ply(_by_material(Material(front=2.0)))
skunk = _one_ply(_by_material(Material(skunk=2.0)))
noisy = _one_ply(_by_material(Material()), _best_with_noise)
online = _one_ply(_by_material(Material(), good_for=False, advice=True))
outcome_heuristic = _one_ply(_by_outcome(Outcome(3.0, -2.0, -2.5, 2.0, 1.5, 2.0, 1.5, 0.4, 0.5, 15.0, 0.5, 0.3)))
distilled_outcome = _one_ply(_by_outcome(Outcome(4.2, -2.5, -3.5, 2.8, 1.8, 2.5, 2.2, 0.6, 0.7, 18.0, 0.6, 0.4)))

OPPONENTS = {
    "random": random,
    "heuristic": heuristic,
    "aggressive": aggressive,
    "defensive": defensive,
    "queue": queue,
    "skunk": skunk,
    "noisy": noisy,
    "online": online,
    "outcome_heuristic": outcome_heuristic,
    "distilled_outcome": distilled_outcome,
}
