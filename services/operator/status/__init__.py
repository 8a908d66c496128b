"""`starlift status`: what an operator needs first, asked of every part at once."""
