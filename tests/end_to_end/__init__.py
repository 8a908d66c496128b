"""A package, so that the fixture shared by its tests ends with the last of them."""
