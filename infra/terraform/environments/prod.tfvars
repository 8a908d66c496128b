environment        = "prod"
github_repository  = "example/starlift"
alarm_email        = "starlift-prod@example.com"
new_network        = { cidr = "10.65.0.0/20", zones = ["a", "b"] }
log_retention_days = 90
may_destroy_data   = false
