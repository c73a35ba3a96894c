"""Speed, measured side by side in one run: `python scripts/bench.py [--threads 2] [--only env,rollout,...]`.

One table: env steps/s, rollout decisions/s, end-to-end decisions/s, exact NashConv, compile and start-up seconds, and
what an adaptive mixture adds. With the `peers` extra installed (pip install -c constraints.txt -e ".[peers]") the same
work runs on OpenSpiel, pgx and Stable-Baselines3 in the same process, and the last column is ours divided by theirs.
Best of several repetitions, on whatever machine this is: quote ratios, and keep the machine quiet.
"""

import argparse
import importlib.util
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SECTIONS = (
    "start",
    "env",
    "rollout",
    "wide",
    "train",
    "armac",
    "league",
    "nash_conv",
    "exact",
    "meta_regret",
    "beasty",
    "beside",
    "shogi",
    "memory",
    "echelon",
)


class Table:
    """Rows (what, value, unit), printed as they come; a peer's row carries the ratio ours / theirs."""

    def __init__(self) -> None:
        self.ours: dict[str, float] = {}

    def add(self, what: str, value: float, unit: str, name: str = "lit-rl", against: str | None = None) -> None:
        ratio = ""
        if against is not None and against in self.ours:
            ours = self.ours[against]
            ratio = f"ours is {(value / ours if unit in ('s', 'ms') else ours / value):,.1f} x faster"
        if name == "lit-rl":
            self.ours[what] = value
        shown = f"{value:,.3f}" if value < 100 else f"{value:,.0f}"
        print(f"{name:<18} {what:<62} {shown:>14} {unit:<12} {ratio}", flush=True)


def rate(work: Callable[[], int], repetitions: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Best units per second of `work`, which returns how many units it did; one call first to compile."""
    work()
    best = 0.0
    for _ in range(repetitions):
        began = clock()
        units = work()
        best = max(best, units / (clock() - began))
    return best


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def bench_start(table: Table, threads: int) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    litrl = [sys.executable, "-m", "lit_rl"]
    with tempfile.TemporaryDirectory() as folder:
        for what, args in (
            ("litrl --help", ["--help"]),
            (
                "Kuhn: start, compile, one iteration, NashConv, files",
                ["fit", "--config", str(ROOT / "configs/kuhn_ppo.yaml"), "--trainer.max_epochs", "1"],
            ),
        ):
            began = time.perf_counter()
            subprocess.run([*litrl, *args], cwd=folder, env=env, check=True, capture_output=True)
            table.add(what, time.perf_counter() - began, "s")


def bench_env(table: Table, threads: int) -> None:
    from envs.game import load_game
    from envs.vector_env import VectorEnv

    for name in ("leduc_poker", "kuhn_poker", "tic_tac_toe"):
        for n in sorted({1, threads}):
            for num_envs in (4096, 65536):
                env = VectorEnv(load_game(f"envs.{name}"), num_envs, seed=0, num_threads=n)

                def work(env=env) -> int:
                    steps = 2_000_000 // env.num_envs
                    for _ in range(steps):
                        env.step(env.sample_uniform())
                    return steps * env.num_envs

                table.add(f"{name}, random legal actions, {num_envs} envs, {n} thread(s)", rate(work), "steps/s")
    ours = f"leduc_poker, random legal actions, 4096 envs, {threads} thread(s)"
    if has("pyspiel"):
        import random

        import pyspiel

        game = pyspiel.load_game("leduc_poker")

        def work() -> int:
            steps = 0
            while steps < 30_000:
                state = game.new_initial_state()
                while not state.is_terminal():
                    steps += not state.is_chance_node()
                    state.apply_action(random.choice(state.legal_actions()))
            return steps

        table.add("leduc_poker, random legal actions, Python loop", rate(work, 3), "steps/s", "OpenSpiel", ours)
    if has("pgx"):
        import jax
        import jax.numpy as jnp
        import pgx

        env = pgx.make("leduc_holdem")
        init, step = jax.vmap(env.init), jax.vmap(pgx.experimental.auto_reset(env.step, env.init))

        def one(carry, _):
            state, key = carry
            key, act, reset = jax.random.split(key, 3)
            action = jax.random.categorical(act, jnp.where(state.legal_action_mask, 0.0, -1e9))
            return (step(state, action, jax.random.split(reset, 4096)), key), None

        run = jax.jit(lambda carry: jax.lax.scan(one, carry, None, length=100)[0])
        key = jax.random.PRNGKey(0)
        start = (init(jax.random.split(key, 4096)), key)

        def work() -> int:
            jax.block_until_ready(run(start)[1])
            return 409_600

        table.add("leduc_holdem, random legal actions, 4096 envs, jitted scan", rate(work, 3), "steps/s", "pgx", ours)


def shared_mlp(game):
    from lit_rl.networks import MLP

    return MLP(game, hidden=(128, 128), shared=True)


def bench_rollout(table: Table, threads: int) -> None:
    from envs.game import load_game
    from envs.vector_env import VectorEnv
    from lit_rl.rollout import Collecting, collect

    game = load_game("envs.leduc_poker")
    for merge_rows in (False, True):
        env, network = VectorEnv(game, 4096, seed=0, num_threads=threads), shared_mlp(game)

        def work(env=env, network=network, merge_rows=merge_rows) -> int:
            return collect(env, network, 16, collecting=Collecting(merge_rows=merge_rows)).num_decisions

        label = "equal rows merged" if merge_rows else "every row"
        table.add(f"leduc_poker rollout, 4096 x 16, shared 2x128, {label}", rate(work, 15), "decisions/s")


def bench_wide(table: Table, threads: int) -> None:
    """What a decision costs beside the network where 13,527 actions may be chosen and no row repeats."""
    import torch

    from envs.bits import pack
    from envs.sampling import draw
    from envs.vector_env import VectorEnv
    from lit_rl.batches import Minibatches, minibatches
    from lit_rl.policy import ActorCritic, PolicyOutput
    from lit_rl.rollout import Collecting, collect
    from scripts.wide_game import GAME

    class Given(ActorCritic):
        """No network at all: logits that are there already."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.logits, self.value = torch.randn(1024, GAME.num_actions), torch.zeros(1024)

        def forward(self, obs, legal, state=None):
            return PolicyOutput(self.logits[: len(obs)], self.value[: len(obs)])

    env, policy, steps = VectorEnv(GAME, 512, seed=0, num_threads=threads), Given(), 16
    how = Collecting(cut_games="bootstrap")
    logits, bits = policy.logits[:512].numpy(), pack(env.legal)

    def random_play() -> int:
        for _ in range(steps):
            env.step(env.sample_uniform())
        return 512 * steps

    def sampling() -> int:
        draw(env, logits, bits)
        return 512

    rollout = collect(env, policy, steps, collecting=how)
    size = sum(x.numel() * x.element_size() for x in rollout.state_dict().values() if torch.is_tensor(x))
    valid = torch.ones(steps, 512, dtype=torch.bool)
    zeros = torch.zeros(steps, 512)

    def first_batch(merge_rows: bool) -> Callable[[], int]:
        settings = Minibatches(1, 16, merge_rows=merge_rows)

        def work() -> int:
            next(minibatches(rollout, zeros, zeros, valid, settings, torch.Generator().manual_seed(0)))
            return 512 * steps

        return work

    what = "13,527 actions, 512 rows"
    table.add(f"{what}: memory per stored decision", size / (512 * steps) / 1000, "kB")
    table.add(f"{what}: sampling", 1e6 / rate(sampling, 20), "us/row")
    table.add(f"{what}: rules and obs, random play", 1e6 / rate(random_play), "us/row")
    collected = rate(lambda: collect(env, policy, steps, collecting=how).num_decisions)
    table.add(f"{what}: collect without a network", 1e6 / collected, "us/row")
    table.add(f"{what}: minibatches to the first batch", 1e6 / rate(first_batch(False)), "us/row")
    table.add(f"{what}: the same, looking for equal rows", 1e6 / rate(first_batch(True)), "us/row")


def make_clock(now: Callable[[], float] = time.perf_counter):
    import lightning as L

    class Clock(L.Callback):
        """Decisions per second over iterations 5 and later, of whole iterations."""

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 5:
                self.began, self.before = now(), int(pl_module.decisions)

        def on_train_end(self, trainer, pl_module):
            self.rate = (int(pl_module.decisions) - self.before) / (now() - self.began)

    return Clock()


def bench_train(table: Table, threads: int) -> None:
    import lightning as L
    import torch

    from datamodules.self_play import SelfPlayDataModule
    from lit_rl.batches import Minibatches
    from lit_rl.ppo import PPO

    def train(label: str, epochs: int = 25, **options) -> None:
        precision = options.pop("precision", "32-true")
        accelerator = options.pop("accelerator", "cpu")
        clock = make_clock()
        minibatches = Minibatches(4, 4, merge_rows=options.pop("merge_rows", True))
        model = PPO("envs.leduc_poker", network=shared_mlp, minibatches=minibatches, **options)
        data = SelfPlayDataModule("envs.leduc_poker", num_envs=4096, num_steps=16, num_threads=threads)
        trainer = L.Trainer(
            accelerator=accelerator, precision=precision, max_epochs=epochs, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[clock], limit_val_batches=0, devices=1,
        )  # fmt: skip
        trainer.fit(model, data)
        table.add(f"leduc_poker PPO, shared 2x128, 4096 x 16, 4 epochs, {label}", clock.rate, "decisions/s")

    train("every row", merge_rows=False)
    train("every row, bf16-mixed", merge_rows=False, precision="bf16-mixed")
    train("equal rows merged")
    if torch.cuda.is_available():
        train("every row, GPU", merge_rows=False, accelerator="gpu")
        train("every row, GPU 16-mixed", merge_rows=False, accelerator="gpu", precision="16-mixed")
    if has("stable_baselines3"):
        ours = "leduc_poker PPO, shared 2x128, 4096 x 16, 4 epochs, every row"
        table.add("PPO on our Leduc env, 2x128, 4096 x 16, 4 epochs", bench_sb3(), "decisions/s", "SB3", ours)


def bench_armac(table: Table, threads: int) -> None:
    """Training as configs/leduc_armac.yaml has it, with and without an actor and a scheduler, each in a process."""
    import json

    variants = {
        "no actor": ["--model.mix_lambda", "0"],
        "actor, share 0.5": ["--model.mix_lambda", "0.5"],
        "actor and scheduler": ["--model.use_scheduler", "true"],
    }
    script = (
        "import json, resource, sys; sys.path[:0] = sys.argv[1:3]; from bench import make_clock; import lightning as L;"
        "from lit_rl.cli import main; clock = make_clock(); fit = L.Trainer.fit;"
        "L.Trainer.fit = lambda self, *a, **k: (self.callbacks.append(clock), fit(self, *a, **k))[1];"
        "main(sys.argv[3:]);"
        "print(json.dumps([clock.rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))"
    )
    found = {label: [] for label in variants}
    for _ in range(3):  # in turns, since a machine has moods
        for label, options in variants.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable, "-W", "ignore", "-c", script, str(ROOT), str(ROOT / "scripts"), "fit", "--config",
                    str(ROOT / "configs/leduc_armac.yaml"), "--trainer.max_epochs", "400",
                    "--trainer.check_val_every_n_epoch", "400", "--trainer.default_root_dir", folder, *options,
                ]  # fmt: skip
                env = {**os.environ, "OMP_NUM_THREADS": "1"}
                output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
            found[label].append(json.loads(output.splitlines()[-1]))
    for label, runs in found.items():
        table.add(f"leduc_poker ARMAC, 1 thread, {label}", max(rate for rate, _ in runs), "decisions/s")
    for label, runs in found.items():
        table.add(f"leduc_poker ARMAC, memory of the process, {label}", min(size for _, size in runs), "MiB")


def bench_sb3() -> float:
    """SB3's PPO on our own env, whose speed it thus gets for free; illegal actions (SB3 has no mask) become a call."""
    import gymnasium
    import numpy as np
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv

    from envs.game import load_game
    from envs.vector_env import VectorEnv

    class Adapter(VecEnv):
        def __init__(self, num_envs: int):
            self.env = VectorEnv(load_game("envs.leduc_poker"), num_envs, seed=0)
            box = gymnasium.spaces.Box(0, 1, self.env.game.obs_shape, np.float32)
            super().__init__(num_envs, box, gymnasium.spaces.Discrete(3))

        def reset(self):
            self.env.reset()
            return self.env.obs.astype(np.float32)

        def step_async(self, actions):
            legal = self.env.legal[np.arange(self.num_envs), actions]
            self.env.step(np.where(legal, actions, 1))

        def step_wait(self):
            return (
                self.env.obs.astype(np.float32),
                self.env.rewards[:, 0].copy(),
                self.env.done.copy(),
                [{}] * self.num_envs,
            )

        def close(self): ...
        def get_attr(self, attr_name, indices=None):
            return [None] * self.num_envs

        def set_attr(self, attr_name, value, indices=None): ...
        def env_method(self, method_name, *args, indices=None, **kwargs):
            return [None] * self.num_envs

        def env_is_wrapped(self, wrapper_class, indices=None):
            return [False] * self.num_envs

    model = PPO(
        "MlpPolicy", Adapter(4096), n_steps=16, batch_size=16384, n_epochs=4, device="cpu",
        policy_kwargs={"net_arch": [128, 128]},
    )  # fmt: skip

    def work() -> int:
        model.learn(65_536 * 3)
        return 65_536 * 3

    return rate(work, 2)


def bench_league(table: Table, threads: int) -> None:
    """The same training by self-play and against ten members; every decision in the env counts, whoever makes it."""
    import lightning as L

    from datamodules.league_play import LeagueDataModule
    from datamodules.self_play import SelfPlayDataModule
    from envs.game import load_game
    from lit_rl.batches import Minibatches
    from lit_rl.league.league import League, Member
    from lit_rl.league.player_file import save_player
    from lit_rl.ppo import PPO

    game = load_game("envs.leduc_poker")
    heuristics = ["envs.heuristics.uniform"] + [
        f"envs.leduc_heuristics.{name}" for name in ("always_call", "always_raise", "hand_strength")
    ]
    with tempfile.TemporaryDirectory() as folder:
        places = {kind: Path(folder) / kind / "league.sqlite" for kind in ("networks", "heuristics")}
        for kind, place in places.items():
            league = League(place, game)
            for i in range(10):
                if kind == "networks":
                    network = {"class_path": "lit_rl.networks.MLP", "init_args": {"hidden": [128, 128], "shared": True}}
                    save_player(place.parent / f"{i}.pt", shared_mlp(game), game, network)
                    league.add(Member(f"network {i}", "past", file=f"{i}.pt"))
                else:
                    league.add(Member(f"heuristic {i}", "heuristic", path=heuristics[i % len(heuristics)]))
            league.close()

        def train(kind: str, num_envs: int, share: float, merge_rows: bool) -> float:
            clock, sizes = make_clock(), {"num_envs": num_envs, "num_steps": 16, "num_threads": threads}
            options = {"matchmaker": "uniform", "self_play_share": share}
            if kind == "self-play":
                data = SelfPlayDataModule("envs.leduc_poker", **sizes)
            else:
                data = LeagueDataModule("envs.leduc_poker", league=str(places[kind]), run="bench", **options, **sizes)
            model = PPO("envs.leduc_poker", network=shared_mlp, minibatches=Minibatches(4, 4, merge_rows=merge_rows))
            trainer = L.Trainer(
                accelerator="cpu", max_epochs=30, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[clock], limit_val_batches=0, devices=1,
            )  # fmt: skip
            trainer.fit(model, data)
            return clock.rate

        for num_envs, merge_rows in ((4096, True), (256, True)):
            rows = "equal rows merged" if merge_rows else "every row"
            what = f"leduc_poker PPO, shared 2x128, {num_envs} x 16, 4 epochs, {rows}"
            for share in (0.0, 0.5):
                rates = {}
                for kind in ("self-play", "networks", "heuristics") * 2:  # best of two, in turns
                    rates[kind] = max(rates.get(kind, 0.0), train(kind, num_envs, share, merge_rows))
                for kind, found in rates.items():
                    lost = 1 - found / rates["self-play"]
                    label = kind if kind == "self-play" else f"10 {kind}, self-play share {share:.0%}, lost {lost:.0%}"
                    table.add(f"{what}, {label}", found, "decisions/s")


def bench_nash_conv(table: Table, threads: int) -> None:
    from envs.exact import GameTree
    from envs.game import load_game
    from lit_rl.evaluation import exact_metrics

    for name in ("leduc_poker", "kuhn_poker"):
        game = load_game(f"envs.{name}")
        began = time.perf_counter()
        tree = GameTree(game)
        tree.evaluate(tree.uniform_policy())
        table.add(f"{name} tree: build and compile", time.perf_counter() - began, "s")
        uniform, network = tree.uniform_policy(), shared_mlp(game)

        def tree_part(tree=tree, uniform=uniform) -> int:
            for _ in range(200):
                tree.evaluate(uniform)
            return 200

        def with_network(tree=tree, network=network) -> int:
            for _ in range(50):
                exact_metrics(network, tree)
            return 50

        def cfr_plus(tree=tree) -> int:
            tree.cfr_plus(1000)
            return 1

        table.add(f"{name} NashConv, tree part", 1000 / rate(tree_part), "ms")
        table.add(f"{name} NashConv, with the forward of a 2x128 network", 1000 / rate(with_network), "ms")
        table.add(f"{name} 1,000 iterations of CFR+", 1 / rate(cfr_plus), "s")
        if has("pyspiel"):
            import pyspiel

            reference = pyspiel.load_game(name)

            def theirs(reference=reference) -> int:
                pyspiel.nash_conv(reference, pyspiel.UniformRandomPolicy(reference))
                return 1

            table.add(f"{name} NashConv, C++", 1000 / rate(theirs, 3), "ms", "OpenSpiel", f"{name} NashConv, tree part")


def bench_exact(table: Table, threads: int) -> None:
    """Exact evaluation of a table that is there already: CPU time of one thread, best of three calls after a first."""
    from envs.exact import exact_evaluator
    from envs.game import load_game
    from lit_rl.evaluation import uniform_policy

    def quiet(line: str) -> None: ...

    for name in (
        "leduc_poker", "leduc_poker_13x4", "liars_dice_1x6", "liars_dice_2x5", "goofspiel_5", "phantom_tic_tac_toe",
        "dark_hex_3x3",
    ):  # fmt: skip
        game = load_game(f"envs.{name}")
        for _ in range(2):  # the first compiles
            began = time.thread_time()
            evaluator = exact_evaluator(game, say=quiet)
            seconds = time.thread_time() - began
        table.add(f"{name}, exact: preparation", seconds, "s")
        flat, best = evaluator.flat(uniform_policy), float("inf")
        evaluator.evaluate(flat)
        for _ in range(3):
            began = time.thread_time()
            evaluator.evaluate(flat)
            best = min(best, time.thread_time() - began)
        table.add(f"{name}, exact: NashConv", 1000 * best, "ms")


def bench_meta_regret(table: Table, threads: int) -> None:
    """The table of regrets with keys that never come back and with a few that always do; what else a decision costs."""
    import resource

    import torch

    from envs.exact import GameTree
    from envs.game import load_game
    from lit_rl.armac.meta_regret import MetaRegret
    from lit_rl.armac.mix_scheduler import MixScheduler, scheduler_loss
    from lit_rl.armac.mix_utility import Counterfactual, MixedDecisions
    from lit_rl.armac.mixing import LinearMixer
    from lit_rl.armac.state_keys import TieredKeys
    from lit_rl.losses import regret_matching

    n, tree = 65_536, GameTree(load_game("envs.leduc_poker"))
    rows = torch.randint(0, tree.num_rows, (n,), generator=torch.Generator().manual_seed(0))
    obs, legal, player = (torch.from_numpy(x)[rows] for x in (tree.obs, tree.legal, tree.row_player))
    scheduler = MixScheduler(tree.game, warmup_iterations=0)
    bins, utilities = scheduler.bins, torch.randn(n, 5)
    start = 0

    def distinct(chunks=153) -> int:
        nonlocal start
        for _ in range(chunks):
            regrets.update(torch.arange(start, start + n) * 1_000_003, utilities)
            start += n
        return chunks * n

    regrets = MetaRegret(bins)
    distinct(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table.add("meta-regret, 10 M distinct keys, max_states 10,000", rate(distinct, 2), "updates/s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    table.add("meta-regret, growth of the process over 30 M distinct keys", grown, "MiB")

    facts = "envs.leduc_poker.betting"
    keys = TieredKeys(tree.game, facts=facts)(obs, player)
    actor, regret = (regret_matching(torch.rand(n, 3), legal) for _ in range(2))
    with torch.no_grad():
        output = scheduler(obs, actor, regret, torch.rand(n, 5))
        probs = scheduler.bin_probs(output.logits).gather(1, output.bin[:, None])[:, 0]
    made = MixedDecisions(
        actor, regret, output.mix_lambda, output.bin, probs, torch.randn(n, 3), torch.randn(n), torch.ones(n)
    )

    def step() -> None:
        desired = torch.full((n, 5), 0.2)
        logits = scheduler.logits(obs, actor, regret)
        (scheduler_loss(logits, desired, bins) + scheduler.regulariser(logits)).mean().backward()

    for what, work in (
        ("meta-regret, leduc_poker, medium keys", lambda: regrets.update(keys, utilities)),
        ("state keys, medium", lambda: TieredKeys(tree.game, facts=facts)(obs, player)),
        ("state keys, fine", lambda: TieredKeys(tree.game, "fine", facts=facts)(obs, player)),
        ("counterfactual utility, 5 bins", lambda: Counterfactual()(made, LinearMixer(), bins)),
        ("scheduler, logits and bins", lambda: torch.no_grad()(scheduler)(obs, actor, regret, utilities.sigmoid())),
        ("scheduler, loss and gradient", step),
    ):
        table.add(f"{what}, {n} rows", rate(lambda work=work: (work(), n)[1]), "rows/s")


def bench_beasty(table: Table, threads: int) -> None:
    """Beasty Bar: random legal play with everything that a step does, and its ten opponents by CPU second."""
    import numpy as np

    from envs.beasty_bar import GAME, documents
    from envs.beasty_bar.heuristics import OPPONENTS
    from envs.heuristics import compile_heuristic
    from envs.vector_env import VectorEnv

    for game in (GAME, documents.GAME):
        for n in sorted({1, threads}):
            env = VectorEnv(game, 16_384, seed=0, num_threads=n)

            def play(env=env) -> int:
                for _ in range(20):
                    env.step(env.sample_uniform())
                return 20 * env.num_envs

            table.add(f"{game.name}, random legal actions and obs, 16384 envs, {n} thread(s)", rate(play), "plies/s")
    env = VectorEnv(GAME, 4096, seed=2)
    for _ in range(60):  # games at all stages
        env.step(env.sample_uniform())
    rows, probs = np.arange(env.num_envs), np.zeros(env.legal.shape, np.float32)
    for name, heuristic in OPPONENTS.items():
        kernel = compile_heuristic(heuristic, GAME)

        def answer(kernel=kernel) -> int:
            kernel(rows, env.state, env.player, env.obs, env.legal, probs)
            return len(rows)

        table.add(f"beasty_bar, {name}", rate(answer, clock=time.thread_time), "decisions/s")


def bench_beside(table: Table, threads: int) -> None:
    """sb3-contrib's MaskablePPO with the same network and settings: on our vector env, and on PettingZoo's own Leduc as
    PettingZoo's tutorial does it, one game; and what both envs alone make of random legal actions."""
    missing = [name for name in ("sb3_contrib", "pettingzoo", "rlcard", "pygame") if not has(name)]
    if missing:
        print(f"beside: not installed, so not compared: {', '.join(missing)}  (pip install {' '.join(missing)})")
        return
    import gymnasium
    import numpy as np
    from pettingzoo.classic import leduc_holdem_v4
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.wrappers import ActionMasker

    from lit_rl.league.beside.stable_baselines3 import SeatVecEnv

    class Taking(gymnasium.Env):
        """Whoever is to move decides, and gets the reward of its own last step."""

        def __init__(self):
            self.aec = leduc_holdem_v4.env()
            self.observation_space = self.aec.observation_space("player_0")["observation"]
            self.action_space = self.aec.action_space("player_0")

        def _seen(self):
            seen = self.aec.observe(self.aec.agent_selection)
            self.mask = seen["action_mask"]
            return seen["observation"]

        def reset(self, seed=None, options=None):
            self.aec.reset(seed)
            return self._seen(), {}

        def step(self, action):
            agent = self.aec.agent_selection
            self.aec.step(int(action))
            over = bool(self.aec.terminations[agent])
            return self._seen(), float(self.aec.rewards[agent]), over, False, {}

    def masks(env) -> np.ndarray:
        return env.unwrapped.mask

    ours, theirs, rng = SeatVecEnv("envs.leduc_poker", num_envs=1024), Taking(), np.random.default_rng(0)
    ours.reset()

    def random_ours() -> int:
        for _ in range(20):
            mask = ours.envs.action_masks()
            ours.step((rng.random(mask.shape) * mask).argmax(1))
        return 20 * ours.num_envs

    def random_theirs() -> int:
        theirs.reset()
        for _ in range(2000):
            if theirs.step((rng.random(4) * theirs.mask).argmax())[2]:
                theirs.reset()
        return 2000

    def learning(env, n_steps: int, decisions: int) -> Callable[[], int]:
        model = MaskablePPO(
            "MlpPolicy", env, n_steps=n_steps, batch_size=4096, n_epochs=4, device="cpu",
            policy_kwargs={"net_arch": [64, 64]},
        )  # fmt: skip
        return lambda: (model.learn(decisions), decisions)[1]

    cpu, what = time.process_time, "leduc, random legal actions, by CPU second"
    table.add(f"{what}, 1024 games", rate(random_ours, clock=cpu), "decisions/s")
    table.add(f"{what}, 1 game", rate(random_theirs, 3, cpu), "decisions/s", "PettingZoo", f"{what}, 1024 games")
    what = "leduc, MaskablePPO, 2x64, rollouts of 8,192, by CPU second"
    table.add(f"{what}, 1024 games", rate(learning(ours, 8, 3 * 8192), 2, cpu), "decisions/s")
    own = learning(ActionMasker(theirs, masks), 8192, 8192)
    table.add(f"{what}, 1 game", rate(own, 1, cpu), "decisions/s", "PettingZoo", f"{what}, 1024 games")


def bench_shogi(table: Table, threads: int) -> None:
    """Perft, random plies with obs and mask, and a tower of 2 x 32: CPU time of one thread, best of several."""
    import torch

    from envs.shogi import GAME, documents
    from envs.shogi.moves import perft
    from envs.shogi.network import Tower
    from envs.vector_env import VectorEnv
    from lit_rl.networks import Headed
    from lit_rl.rollout import Collecting, collect

    def best(work: Callable[[], int], repetitions: int = 5) -> float:
        work()
        found = 0.0
        for _ in range(repetitions):
            began = time.thread_time()
            done = work()
            found = max(found, done / (time.thread_time() - began))
        return found

    state = GAME.new_state()[0]
    table.add("shogi: perft of the start to depth 5", best(lambda: perft(state, 5)) / 1e6, "M leaves/s")
    for game in (GAME, documents.GAME):
        env = VectorEnv(game, 256, seed=1)

        def plies(env=env) -> int:
            for _ in range(100):
                env.step(env.sample_uniform())
            return 100 * env.num_envs

        table.add(f"{game.name}: random plies with obs and mask", best(plies) / 1e3, "k plies/s")
        network, small = Headed(game, Tower), VectorEnv(game, 128, seed=1)
        how = Collecting(cut_games="bootstrap")
        stored = collect(small, network, 8, collecting=how)
        tensors = [x for x in stored.state_dict().values() if isinstance(x, torch.Tensor) and x.shape[:2] == (8, 128)]
        size = sum(x.nbytes for x in tensors if x is not stored.outcomes) / (8 * 128)
        table.add(f"{game.name}: memory of a stored decision", size, "bytes")
        decisions = best(lambda n=network, e=small, h=how: collect(e, n, 8, collecting=h).num_decisions, 3)
        table.add(f"{game.name}: rollout with a tower of 2 x 32", decisions / 1e3, "k decisions/s")


def bench_memory(table: Table, threads: int) -> None:
    """GRU 128 on obs 128: learning batched over time, step by step and compiled, and end to end. CPU time."""
    import lightning as L
    import torch

    from datamodules.self_play import SelfPlayDataModule
    from lit_rl.batches import Minibatches
    from lit_rl.networks import Dense, Recurrent
    from lit_rl.policy import ActorCritic, Chunks
    from lit_rl.ppo import PPO
    from lit_rl.returns import Credit
    from scripts.memory_game import GAME as game

    def network(game=game):
        return Recurrent(game, lambda g: Dense(g, (128, 128)))

    def ratio(ours: Callable[[], None], theirs: Callable[[], None], rounds: int = 7) -> tuple[float, float]:
        """Seconds of `ours`, and how many times as long `theirs` takes: medians, in turns."""
        mine, quotients = [], []
        for number in range(rounds + 1):
            spent = []
            for work in (ours, theirs):
                began = time.process_time()
                for _ in range(10):
                    work()
                spent.append((time.process_time() - began) / 10)
            if number:  # the first round warms up
                mine.append(spent[0])
                quotients.append(spent[1] / spent[0])
        return statistics.median(mine), statistics.median(quotients)

    policy = network()
    for chunks, length in ((12, 64), (48, 64), (512, 32)):
        rows = chunks * length
        obs = torch.randint(0, 2, (rows, *game.obs_shape), dtype=torch.uint8)
        legal, first = torch.ones(rows, game.num_actions, dtype=torch.bool), torch.arange(chunks)
        how = Chunks(torch.zeros(chunks, 128), torch.arange(rows), length, first)

        def learn(unroll, obs=obs, legal=legal, how=how) -> None:
            output = unroll(obs, legal, how)
            (output.logits.square().mean() + output.value.mean()).backward()

        what = f"GRU 128, obs 128, forward and backward, {chunks} chunks of {length}"
        spent, slower = ratio(lambda: learn(policy.unroll), lambda: learn(lambda *x: ActorCritic.unroll(policy, *x)))
        table.add(what, 1e6 * spent / rows, "us/row")
        table.add("  step by step", slower, "x as long")
        if chunks == 12:
            compiled, began = torch.compile(policy.unroll), time.process_time()
            learn(compiled)
            table.add("  compiling", time.process_time() - began, "s")
            table.add("  compiled", ratio(lambda: learn(policy.unroll), lambda c=compiled: learn(c))[1], "x as long")
    obs, legal, state = obs[:128], legal[:128], torch.zeros(128, 128)
    forward, began = torch.compile(policy.forward), time.process_time()
    with torch.no_grad():
        forward(obs, legal, state)
        table.add("GRU 128, obs 128, forward of 128 rows: compiling", time.process_time() - began, "s")
        spent, slower = ratio(lambda: policy(obs, legal, state), lambda: forward(obs, legal, state))
    table.add("GRU 128, obs 128, forward of 128 rows", 1e6 * spent / 128, "us/row")
    table.add("  compiled", slower, "x as long")
    clock = make_clock(time.process_time)
    path, credit = "scripts.memory_game", Credit(cut_games="bootstrap")
    model = PPO(path, network=network, minibatches=Minibatches(2, 4, merge_rows=False), credit=credit)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=20, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock], limit_val_batches=0, devices=1,
    )  # fmt: skip
    trainer.fit(model, SelfPlayDataModule(path, num_envs=256, num_steps=32, num_threads=threads))
    table.add("PPO, GRU 128, obs 128, 256 x 32, 2 epochs, by CPU second", clock.rate, "decisions/s")


def bench_echelon(table: Table, threads: int) -> None:
    """Echelon's world with all observations, an opponent, and a rollout: CPU time of one thread, best of several.

    A team step is one decision of every mech. Games are under way, between lieutenants, so that there is fighting.
    """
    import numpy as np

    from envs.echelon import GAME
    from envs.echelon.heuristics import OPPONENTS
    from envs.echelon.network import Streams
    from envs.heuristics import compile_heuristic
    from envs.vector_env import VectorEnv
    from lit_rl.networks import Recurrent
    from lit_rl.rollout import Collecting, collect

    env, rows = VectorEnv(GAME, 128, seed=1), np.arange(128)
    probs = np.zeros(env.legal.shape, np.float32)
    kernel = compile_heuristic(OPPONENTS["lieutenant_50"], GAME)

    def fight(ticks: int) -> float:
        """CPU seconds of the env alone."""
        spent = 0.0
        for _ in range(ticks * GAME.num_players):
            kernel(rows, env.state, env.player, env.obs, env.legal, probs)
            action = env.sample(probs)
            began = time.thread_time()
            env.step(action)
            spent += time.thread_time() - began
        return spent

    fight(60)
    steps = 20 * GAME.num_players * env.num_envs
    best = max(steps / fight(20) for _ in range(5))
    table.add("echelon: world with observation, 12 mechs", best / GAME.num_players, "team steps/s")

    def answer() -> int:
        kernel(rows, env.state, env.player, env.obs, env.legal, probs)
        return len(rows)

    table.add("echelon, lieutenant_50", rate(answer, clock=time.thread_time), "decisions/s")
    network = Recurrent(GAME, Streams)
    how = Collecting(cut_games="bootstrap")
    decisions = rate(lambda: collect(env, network, 24, collecting=how).num_decisions, 3, time.thread_time)
    table.add("echelon: rollout with sets and GRU 128, 128 envs", decisions, "decisions/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and of the environment")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"comma-separated sections of {', '.join(SECTIONS)}")
    args = parser.parse_args()
    if unknown := set(args.only.split(",")) - set(SECTIONS):
        parser.error(f"unknown section {sorted(unknown)[0]!r}; choose from {', '.join(SECTIONS)}")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import torch

    from lit_rl.run.freed_memory import keep_freed_memory

    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the command does
    table = Table()
    for name in SECTIONS:
        if name in args.only.split(","):
            globals()[f"bench_{name}"](table, args.threads)
    missing = [m for m in ("pyspiel", "pgx", "stable_baselines3") if not has(m)]
    if missing:
        print(f'not installed, so not compared: {", ".join(missing)}  (pip install -c constraints.txt -e ".[peers]")')


if __name__ == "__main__":
    main()
