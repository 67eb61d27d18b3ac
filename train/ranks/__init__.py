"""The ranks of a run: who they are, how they share weights out, what they tell one another, and who hangs."""
