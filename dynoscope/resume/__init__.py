"""Go on with a run: where the training stands, what it supersedes, what went before."""
