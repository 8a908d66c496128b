environment        = "dev"
github_repository  = "example/starlift"
alarm_email        = "starlift-dev@example.com"
new_network        = { cidr = "10.64.0.0/20", zones = ["a", "b"] }
log_retention_days = 14
may_destroy_data   = true
