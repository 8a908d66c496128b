"""Programs that only developers run: generators and checks. They are not installed with the product."""
