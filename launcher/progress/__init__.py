"""What is said of a run while it goes on: written by the pilot, folded into a board, shown live."""
