"""What a run needs to survive and to tell: checkpoints, folders, signals, errors, replays."""
