"""Shogi's rules: counted moves, hand-made positions, a slow twin, and cshogi where it is installed."""

import numpy as np
import pytest
from games.shogi_oracle import Position, usi

from envs.contract import check_game
from envs.shogi import GAME, compact, documents, rules
from envs.shogi.moves import PROMOTES, ROOM, SOURCE, generate, make, perft, unmake
from envs.shogi.notation import START_SFEN, move_of, read_sfen, usi_of, write_sfen
from envs.shogi.pieces import SQUARES
from envs.vector_env import VectorEnv

MATSURI = "l6nl/5+P1gk/2np1S3/p1p4Pp/3P2Sp1/1PPb2P1P/P5GS1/R8/LN4bKL w RGgsn5p 1"
MOST = "R8/2K1S1SSk/4B4/9/9/9/9/9/1L1L1L3 b RBGSNLP3g3n17p 1"
COUNTS = {  # leaves by depth: qiita.com/ak11/items/8bd5f2bb0f5b014143c8; the others, ShogiLibSharp's perft tests
    START_SFEN: (30, 900, 25_470, 719_731, 19_861_490, 547_581_517),
    MATSURI: (207, 28_684, 4_809_015, 516_925_165),
    MOST: (593, 105_677, 53_393_368),
}
DEFAULT = {START_SFEN: 4, MATSURI: 3, MOST: 2}  # deeper ones are slow
DEPTHS = [
    pytest.param(sfen, depth, marks=[pytest.mark.slow] if depth > DEFAULT[sfen] else [], id=f"{name}-{depth}")
    for name, sfen in (("start", START_SFEN), ("matsuri", MATSURI), ("593", MOST))
    for depth in range(1, len(COUNTS[sfen]) + 1)
]


@pytest.mark.parametrize("sfen, depth", DEPTHS)
def test_perft(sfen, depth):
    state = read_sfen(sfen)
    before = state.tobytes()
    assert perft(state[0], depth) == COUNTS[sfen][depth - 1]
    assert state.tobytes() == before


def moves(state):
    return state["moves"][: state["num_moves"]].tolist()


def legal(sfen):
    return {usi_of(move) for move in moves(read_sfen(sfen)[0])}


def played(sfen, line):
    """The state after the moves, one by one; the last of them may end the game."""
    state = read_sfen(sfen)[0]
    for name in line:
        rules.play(state, move_of(state, name))
    return state


POSITIONS = [  # name, sfen, moves that are legal, moves that are not
    ("a pawn must promote", "4k4/P8/9/9/9/9/9/9/4K4 b - 1", ["9b9a+"], ["9b9a"]),
    ("so must a lance", "4k4/L8/9/9/9/9/9/9/4K4 b - 1", ["9b9a+"], ["9b9a"]),
    ("and a knight on the last two ranks", "4k4/9/9/N8/9/9/9/9/4K4 b - 1", ["9d8b+"], ["9d8b"]),
    ("a knight may stay on the third", "4k4/9/9/9/N8/9/9/9/4K4 b - 1", ["9e8c", "9e8c+"], []),
    ("a silver need not promote", "4k4/S8/9/9/9/9/9/9/4K4 b - 1", ["9b8a", "9b8a+"], []),
    ("promotion on the way out", "4k4/9/8S/9/9/9/9/9/4K4 b - 1", ["1c2d+", "1c2d"], []),
    ("a gold never promotes", "4k4/9/9/G8/9/9/9/9/4K4 b - 1", ["9d9c"], ["9d9c+"]),
    ("no piece is dropped where it can never move", "4k4/9/9/9/9/9/9/9/4K4 b PLN 1", ["P*9b", "N*9c"],
     ["P*9a", "L*9a", "N*9a", "N*9b"]),
    ("two pawns on a file", "4k4/9/9/9/9/9/P8/9/4K4 b P 1", ["P*8e"], ["P*9e", "P*9b"]),
    ("a tokin is no pawn", "4k4/9/9/9/9/9/+P8/9/4K4 b P 1", ["P*9e"], []),
    ("mate by a dropped pawn", "7nk/9/8G/9/9/9/9/9/K8 b P 1", ["P*2c"], ["P*1b"]),
    ("a silver can take it", "7sk/9/8G/9/9/9/9/9/K8 b P 1", ["P*1b"], []),
    ("a pinned silver cannot", "R6sk/9/8G/9/9/9/9/9/K8 b P 1", [], ["P*1b"]),
    ("a silver pinned on that line can", "8k/9/6G1G/9/9/8s/9/9/K7R b P 1", ["P*2b"], []),
    ("mate by a dropped lance", "7nk/9/8G/9/9/9/9/9/K8 b L 1", ["L*1b"], []),
    ("mate by a pawn that moves", "7nk/9/8P/8G/9/9/9/9/K8 b - 1", ["1c1b", "1c1b+"], []),
    ("a pinned piece keeps to its line", "4k4/4r4/9/9/9/9/4G4/9/4K4 b - 1", ["5g5f", "5g5h"], ["5g4g", "5g4f", "5g6g"]),
    ("in double check only the king moves", "4k4/9/9/4r4/9/9/3n5/9/G3K4 b G 1", ["5i4i"], ["G*5h", "9i9h"]),
    ("a check is blocked, or answered by taking", "4k4/9/9/4r4/3G5/9/9/9/4K4 b P 1", ["6e5d", "6e5e", "P*5h"],
     ["P*6f", "6e6d"]),
    ("a knight's check is not blocked", "4k4/9/9/9/9/9/3n5/9/4K4 b G 1", ["5i4h"], ["G*6h", "G*5h"]),
    ("the king does not step back on the line of a rook", "4k4/9/9/4r4/9/9/9/4K4/9 b - 1", ["5h4h"], ["5h5i", "5h5g"]),
    ("White's pawn goes down", "4k4/9/9/9/9/9/p8/9/4K4 w P2p 1", ["9g9h+", "9g9h", "P*8h", "P*1b"], ["P*9b", "P*8i"]),
]  # fmt: skip


@pytest.mark.parametrize("name, sfen, can, cannot", POSITIONS, ids=[row[0] for row in POSITIONS])
def test_position(name, sfen, can, cannot):
    found = legal(sfen)
    assert found == {usi(move) for move in Position(sfen).moves()}
    assert set(can) <= found and not set(cannot) & found


def test_repetition():
    """The fourth time is a draw; another player to move, or another hand, is another position."""
    shuffle = ["2h3h", "8b7b", "3h2h", "7b8b"]
    state = played(START_SFEN, shuffle * 2 + shuffle[:3])
    assert (state["end"], state["repeats"]) == (rules.RUNNING, 2)
    state = played(START_SFEN, shuffle * 3)
    assert (state["end"], state["winner"], state["repeats"]) == (rules.REPETITION, rules.NOBODY, 3)
    out = np.zeros(2)
    rules.rewards(state, out)
    assert not out.any() and rules.current_player(state) == -4


@pytest.mark.parametrize("player", [0, 1])
def test_perpetual_check_loses(player):
    """A rook that follows the king: to be seen from both sides of the board."""
    sfen = ("k8/9/9/9/9/9/9/9/1R6K b - 1", "k6r1/9/9/9/9/9/9/9/8K w - 1")[player]
    checks = (["8i9i", "9a8a", "9i8i", "8a9a"], ["2a1a", "1i2i", "1a2a", "2i1i"])[player]
    state = played(sfen, [*checks * 3])
    assert (state["end"], state["winner"]) == (rules.PERPETUAL, 1 - player)
    out = np.zeros(2)
    rules.rewards(state, out)
    assert out.tolist() == [-1 + 2 * player, 1 - 2 * player]


def test_one_quiet_move_among_the_checks_makes_it_a_draw():
    sfen, quiet = "k8/9/9/9/9/9/9/9/1R6K b - 1", ["8i8h", "9a9b", "8h8i", "9b9a"]
    checks = ["8i9i", "9a8a", "9i8i", "8a9a"]
    state = played(sfen, checks + quiet + checks)
    assert (state["end"], state["winner"]) == (rules.REPETITION, rules.NOBODY)
    state = played(sfen, quiet + checks)
    assert state["end"] == rules.RUNNING and state["repeats"] == 2


def test_where_both_gave_check_with_every_move_it_is_a_draw():
    """No such position is known, so the answers to a real perpetual check are counted as if they were checks, too."""
    plies = 12  # since the position stood there first; the last move is not counted yet
    state = played("k8/9/9/9/9/9/9/9/1R6K b - 1", ["8i9i", "9a8a", "9i8i", "8a9a"] * 3)
    state["in_check"] = True
    for answers, end, winner in ((4, rules.PERPETUAL, 1), (5, rules.REPETITION, rules.NOBODY)):
        copy = np.array([state])[0]
        copy["checks"][1], copy["end"], copy["winner"] = answers, rules.RUNNING, rules.NOBODY
        rules._repeated(copy, plies)
        assert (copy["end"], copy["winner"]) == (end, winner)


DECLARING = [  # sfen, whether the player to move wins by declaring
    ("+R+B+B+R1GGSS/1K1PPP3/9/9/9/9/9/9/8k b - 1", False),
    ("+R+B+B+RG3K/PPPPP4/9/9/9/9/9/9/7k1 b P 1", False),
    ("+R+B+B+RG3K/PPPPP4/9/9/9/9/9/9/7k1 b 2P 1", True),
    ("1K7/9/9/9/9/9/9/p4pppp/k3g+r+b+b+r w p 1", True),
    ("+R+B+B+RG4/PPPPP4/9/8K/9/9/9/9/7k1 b 9P 1", False),
    ("+R+B+B+R4K/PPPPP4/9/9/9/9/9/9/7k1 b 9P 1", False),
    ("+R+B+B+RG3K/PPPPP2s1/9/9/9/9/9/9/7k1 b 9P 1", False),
]


@pytest.mark.parametrize("sfen, wins", DECLARING)
def test_impasse(sfen, wins):
    """Points for both colours, ten pieces, the king's place, and no check."""
    state = read_sfen(sfen)[0]
    assert wins == bool(rules.may_declare(state)) == Position(sfen).may_declare()
    assert (state["end"], state["winner"]) == ((rules.IMPASSE, state["turn"]) if wins else (rules.RUNNING, -1))


def test_mate_and_the_last_ply():
    state = played("k8/9/9/9/9/9/9/9/8K b G 1", ["G*9b"])
    assert (state["end"], state["winner"]) == (rules.RUNNING, rules.NOBODY)  # the king takes
    state = played("k8/9/1G7/9/9/9/9/9/8K b G 1", ["G*8b"])
    assert (state["end"], state["winner"]) == (rules.MATE, 0)
    state = played(START_SFEN.replace(" 1", f" {rules.MAX_PLIES}"), ["7g7f"])
    assert (state["end"], state["winner"]) == (rules.LENGTH, rules.NOBODY)


@pytest.mark.parametrize("games", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_parity_with_the_slow_twin(games):
    rng, seen = np.random.default_rng(18), set()
    for _ in range(games):
        state, times = GAME.new_state()[0], {}
        for _ in range(160):
            twin = Position(write_sfen(state))
            times[twin.key()] = times.get(twin.key(), 0) + 1
            assert state["repeats"] == times[twin.key()] - 1
            assert bool(state["in_check"]) == twin.in_check(twin.turn)
            assert sorted(map(usi_of, moves(state))) == sorted(map(usi, twin.moves()))
            assert (state["end"] == rules.IMPASSE) == twin.may_declare()
            seen.add(int(state["in_check"]))
            if state["end"]:
                break
            rules.play(state, int(rng.choice(moves(state))))
    assert seen == {0, 1}


def test_the_key_is_that_of_the_position():
    """However it was reached; and a move taken back leaves nothing."""
    rng, buffer = np.random.default_rng(3), np.zeros(ROOM, np.int16)
    state = GAME.new_state()
    for _ in range(300):
        if state["end"][0]:
            break
        anew = read_sfen(write_sfen(state[0]))
        assert anew["key"] == state["key"] and (anew["moves"] == state["moves"])[0, : state["num_moves"][0]].all()
        move, before = int(rng.choice(moves(state[0]))), state.tobytes()
        taken = make(state[0], move)
        generate(state[0], buffer)
        unmake(state[0], move, taken)
        assert state.tobytes() == before
        rules.play(state[0], move)


@pytest.mark.parametrize("interface", [compact, documents], ids=["compact", "documents"])
def test_actions_name_moves_and_back(interface):
    """One action for each move, the same for both colours on a turned board."""
    rng, state = np.random.default_rng(5), GAME.new_state()[0]
    for _ in range(400):
        if state["end"]:
            rules.init(state)
        mask = np.zeros(interface.GAME.num_actions, np.bool_)
        interface.legal_actions(state, mask)
        actions = [int(interface.action_of(state["turn"], move)) for move in moves(state)]
        assert len({*actions}) == len(actions) and sorted(actions) == np.flatnonzero(mask).tolist()
        assert [int(interface.move_of(state, action)) for action in actions] == moves(state)
        turned = [int(interface.action_of(1 - state["turn"], turn_move(move))) for move in moves(state)]
        assert turned == actions
        rules.play(state, int(rng.choice(moves(state))))


def turn_move(move):
    to, source = SQUARES - 1 - move % SOURCE, move // SOURCE % SOURCE
    return to + SOURCE * (source if source >= SQUARES else SQUARES - 1 - source) + move // PROMOTES * PROMOTES


@pytest.mark.parametrize("game", [GAME, documents.GAME], ids=lambda game: game.name)
def test_contract(game):
    kept = check_game(game, num_games=1)
    assert any(line.startswith("names") for line in kept) and any(line.startswith("redact") for line in kept)


def test_the_bonus_is_what_was_taken():
    """A hundredth for a pawn taken and held, and the rest for promotion."""
    state = played("4k4/9/4p4/4P4/9/9/9/9/4K4 b - 1", ["5d5c+"])
    out = np.zeros(2)
    rules.bonus(state, out)
    assert out.tolist() == pytest.approx([0.07, -0.07])  # two for the pawn, five for the tokin
    state = played(START_SFEN, ["7g7f"])
    rules.bonus(state, out := np.zeros(2))
    assert not out.any()


def test_a_cut_game_knows_who_was_to_move():
    env = VectorEnv(GAME, 8, seed=2, truncate_after=5)
    for _ in range(5):
        env.step(env.sample_uniform())
    assert env.truncated.all() and (env.final_player == 1).all()
    assert (env.final_obs[:, 1, 99] == 1).all() and (env.final_obs[:, 0, 99] == 0).all()


cshogi_squares = np.array([9 * (s % 9) + 8 - s // 9 for s in range(81)])  # theirs go down the files, from 1a
cshogi_hands = np.array([0, 1, 2, 3, 5, 6, 4])  # theirs: pawn, lance, knight, silver, bishop, rook, gold


def from_cshogi(found):
    """Moves of `envs.shogi.moves` from cshogi's, both arrays of numbers."""
    to, source, promotes = cshogi_squares[found & 127], (found >> 7) & 127, (found >> 14) & 1
    dropped = SQUARES + cshogi_hands[np.maximum(source - 81, 0)]
    return to + SOURCE * np.where(source >= 81, dropped, cshogi_squares[np.minimum(source, 80)]) + PROMOTES * promotes


def lockstep(choose, games, seed):
    """Games in both engines, every position compared; how many ended in each way."""
    cshogi = pytest.importorskip("cshogi", reason="cshogi is not installed: pip install 'lit-rl[shogi-tests]'")
    rng, ends = np.random.default_rng(seed), np.zeros(len(rules.ENDS), int)
    for _ in range(games):
        board, state, past = cshogi.Board(), GAME.new_state()[0], []
        while True:
            theirs = np.array(list(board.legal_moves), np.int64)
            translated = from_cshogi(theirs)
            assert sorted(translated.tolist()) == sorted(moves(state)), board.sfen()
            assert board.is_check() == bool(state["in_check"])
            assert board.is_nyugyoku() == (state["end"] == rules.IMPASSE)
            verdict = board.is_draw()  # from the second time on, by what has happened since the last time
            if state["repeats"]:
                assert verdict in (cshogi.REPETITION_DRAW, cshogi.REPETITION_WIN, cshogi.REPETITION_LOSE)
            if state["end"] == rules.PERPETUAL:
                mine = cshogi.REPETITION_WIN if state["winner"] == state["turn"] else cshogi.REPETITION_LOSE
                assert verdict == mine
            if verdict == cshogi.REPETITION_DRAW:
                assert state["repeats"] and state["end"] != rules.PERPETUAL
            if state["end"]:
                break
            move = choose(rng, state, translated, past)
            past.append(move)
            board.push(int(theirs[translated.tolist().index(move)]))
            rules.play(state, move)
        ends[state["end"]] += 1
    return ends


def at_random(rng, state, legal, past):
    return int(rng.choice(legal))


def back_and_forth(rng, state, legal, past):
    """After a random opening mostly back where the piece came from, or check: repetitions of both kinds."""
    if len(past) > 30 and rng.random() < 0.97:
        last = past[-2]
        back = last // SOURCE % SOURCE + SOURCE * (last % SOURCE)
        if last // SOURCE % SOURCE < SQUARES and back in legal:
            return back
        checks = [int(move) for move in legal if gives_check(state, int(move))]
        if checks:
            return checks[0]
    return int(rng.choice(legal))


def gives_check(state, move):
    copy = np.array([state])[0]
    rules.play(copy, move)
    return bool(copy["in_check"])


@pytest.mark.parametrize("games", [3, pytest.param(10_000, marks=pytest.mark.slow)])
def test_lockstep_with_cshogi(games):
    ends = lockstep(at_random, games, seed=1)
    assert ends.sum() == games and (games < 100 or ends[[rules.MATE, rules.IMPASSE, rules.LENGTH]].all())


@pytest.mark.parametrize("games", [10, pytest.param(2000, marks=pytest.mark.slow)])
def test_repetition_verdicts_of_cshogi(games):
    ends = lockstep(back_and_forth, games, seed=2)
    assert ends[rules.REPETITION] > games / 2 and (games < 100 or ends[rules.PERPETUAL] > 0)
