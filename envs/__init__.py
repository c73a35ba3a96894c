"""Games and what drives them: numpy and numba only; knows nothing of learning."""
