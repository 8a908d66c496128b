"""What runs Starlift: topology, images, Terraform, and the same things on one machine."""
