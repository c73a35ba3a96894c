"""Leagues: who is in one, whom to meet, who sits where, who is how strong. No Trainer in here."""
