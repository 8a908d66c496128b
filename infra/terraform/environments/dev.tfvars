# Small: tasks and endpoints in one zone, half a core for each task, a run every five minutes and a proof every hour.
environment         = "dev"
github_repository   = "example/starlift"
alarm_email         = "starlift-dev@example.com"
new_network         = { cidr = "10.64.0.0/20", zones = ["a", "b"], task_zones = 1 }
run_every_minutes   = 5
prove_every_minutes = 60
log_retention_days  = 14
may_destroy_data    = true
sizes = {
  ingestion   = { cpu = 512, memory = 1024, max = 1 }
  remodelling = { cpu = 512, memory = 1024, max = 2 }
  loading     = { cpu = 512, memory = 1024, max = 2 }
  operator    = { cpu = 512, memory = 1024 }
}
