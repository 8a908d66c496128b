"""What Starlift needs on AWS, and the means to check it without an account."""
