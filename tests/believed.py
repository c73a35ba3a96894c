"""Where an artefact is believed: places whose content neither the rules nor the rest of the artefact tells.

Reason -> patterns of places, as `hostile.place_of` names them; `#` stands for a number of a row, a rank, a weight. All
of it is held to dtype, shape and range by the code that loads it.
"""

GAMES = "*DataModule.ranks.#"

MEMORY, LESSONS, PAST = "memories.#.memory", "memories.#.lessons", "RetrospectiveDataModule.ranks.#.opponents"
SEATING = "LeagueDataModule.ranks.#.opponents.seating"

BELIEVED = {
    "drawn: every 64 bits are the state of a random stream": [
        f"{GAMES}.env.action_streams", f"{GAMES}.env.game_streams", f"{PAST}.streams", f"{PAST}.seed",
        f"{SEATING}.streams",
    ],
    "chosen for the run, or by its schedules, and kept by it: the seed, the temperature, who sits where": [
        "*DataModule.seed", f"{GAMES}.rollout.temperature", f"{PAST}.slot", f"{SEATING}.*",
        "LeagueDataModule.ranks.#.opponents.counts.*", "LeagueDataModule.ranks.#.opponents.refreshed",
    ],
    "numbers of the optimizer and of the schedule of its learning rate, which come from the checkpoint": [
        "optimizer_states.#.param_groups.#.*", "lr_schedulers.#.*",
    ],
    "said by the network that played, with the weights it then had": [
        *(f"{GAMES}.rollout.{name}" for name in ("log_prob", "value", "logits", "state", "last_value", "last_state")),
        f"{GAMES}.rollout.extras.*", "iteration.#.kept.*",
    ],
    "rewards may be shaped by a bonus and the team's share, whose weights may change in a run; outcomes are checked": [
        f"{GAMES}.rollout.rewards",
    ],
    "drawn: which seats explored, told for each decision": [
        f"{GAMES}.rollout.exploration",
    ],
    "which decisions are the learner's, where others sit in seats that were drawn": [
        "RetrospectiveDataModule.ranks.#.rollout.learner", "LeagueDataModule.ranks.#.rollout.learner",
    ],
    "how many batches of the iteration were handed out; Lightning's restore holds it to the loader's own count": [
        f"{GAMES}.cursor",
    ],
    "Lightning's counts of steps that were begun: one more than were made, and nobody looks": [
        "loops.fit_loop.epoch_loop.*progress.total.ready",
    ],
    "a weight that never had a gradient has no moments": ["optimizer_states.#.state.#"],
    "learned: sums, samples and lessons of games that are over": [
        *(f"{MEMORY}.{name}" for name in ("regrets", "policies", "visits")),
        *(f"{MEMORY}.*.{name}" for name in ("vector", "weight", "seen", "sums", "total")),
        *(f"memories.#.critic_memory.{name}" for name in ("sums", "counts", "target", "action")),
        *(f"memories.#.meta_regret.{name}" for name in ("utilities", "regrets", "counters", "born", "key")),
        *(f"{LESSONS}.*.{name}" for name in ("target", "weight", "actor", "regret", "q", "desired", "mix_lambda", "bin",
                                             "key")),
        f"{LESSONS}", f"{LESSONS}.actor", f"{LESSONS}.scheduler", f"{LESSONS}.shares",
        f"{PAST}.kept", f"{PAST}.weights.#", f"{PAST}.seen",
    ],
    "infostates and histories that were met; one that the game does not know is never met again": [
        *(f"{name}.{what}" for name in (MEMORY, f"{MEMORY}.*", f"{MEMORY}.*.index", "memories.#.critic_memory",
                                        "memories.#.memo", f"{LESSONS}.*", f"{PAST}.memos.#")
          for what in ("obs", "legal", "history")),
    ],
    "learned: weights, and what an optimizer remembers of their gradients": [
        "state_dict.*", "optimizer_states.#.state.#.*",
    ],
    "measured or counted in iterations that are over; goes into metrics.csv, pictures and status.json": [
        "iteration.#.minibatches.#.*", "callbacks.GradNorm.steps.#.*", "callbacks.MixLambda.*",
        "callbacks.RunSummary.*", "callbacks.FiniteGuard.skips",
    ],
    "about the files beside the checkpoint, which are looked at when the run goes on": [
        "callbacks.Replay.*", "callbacks.LastCheckpoint.*", "callbacks.ModelCheckpoint.*",
    ],
    "what a run says of itself; the games beside it are held to the rules, and to weights whose hash it names": [
        *(f"replay.#.{name}" for name in ("run", "continues", "seed", "game", "iteration", "decisions", "row",
                                          "precision", "weights", "carried", "moves.#.value", "moves.#.extras.*")),
    ],
    "who belongs to a league and how each has fared; what it names is looked at before it is loaded": [
        *(f"league.members.{name}" for name in (
            "state", "birth", "parent", "file", "sha256", "path", "init_args", "permanent", "created", "reason",
            "notes", "rating", "deviation", "volatility", "role")),
        "league.rosters",
    ],
    "weights of a player, and which network of ours they are to be read as": [
        "player.state_dict.*", "player.network*", "player.hyper_parameters.network*",
    ],
    "a callback that the checkpoint does not know begins anew": [
        *(f"callbacks.{name}" for name in ("FiniteGuard", "GradNorm", "MixLambda", "ModelCheckpoint", "Replay",
                                           "RunSummary")),
    ],
}  # fmt: skip
