"""Dead letters: what they are, and what an operator does with them. Nothing here knows of a terminal."""
