"""Terraform without AWS: the real core, and a stand-in for the provider that knows its schema and nothing else."""
