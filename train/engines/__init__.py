"""What starts the ranks of a training: torch's elastic launcher or Ray Train, with the same endings."""
