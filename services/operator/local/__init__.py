"""`starlift up`, `down` and `demo`: everything that needs the local stack, and that no image for AWS has."""
