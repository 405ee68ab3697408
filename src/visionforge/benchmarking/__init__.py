"""A matrix of trainings as one study: planned, shared by workers, and told as one leaderboard."""
