# What may differ between environments: sizes, zones, schedules, Spot.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

run "small" {
  variables {
    new_network         = { cidr = "10.64.0.0/20", zones = ["a", "b"], task_zones = 1 }
    run_every_minutes   = 5
    prove_every_minutes = 60
    sizes               = { loading = { cpu = 512, memory = 1024, max = 1 }, operator = { cpu = 512, memory = 2048 } }
  }
  assert {
    condition     = length(local.network.subnet_ids) == 1 && toset(module.endpoints[0].subnet_ids) == toset(local.network.subnet_ids) && length(output.subnets) == 2
    error_message = "Tasks and endpoints are in more zones than was asked for, or databases have not all."
  }
  assert {
    condition     = [for name, expression in module.schedule.expressions : expression] == ["rate(5 minutes)"] && module.proof.expression == "rate(60 minutes)"
    error_message = "Runs or proofs are made as often as the topology says, not as the environment."
  }
  assert {
    condition     = tonumber(reverse(jsondecode(module.proof.input).Overrides.ContainerOverrides[0].Command)[0]) > 2 * 5 * 60
    error_message = "A proof ends before the next run is loaded, and calls PENDING what is in flight."
  }
  assert {
    condition     = module.proof.unproved_minutes >= 4 * 60
    error_message = "The alarm is raised before there could have been a proof."
  }
  assert {
    condition = jsonencode(local.sizes.loading) == jsonencode({ cpu = 512, max = 1, memory = 1024 }) && (
      jsonencode(local.sizes.ingestion) == jsonencode({ cpu = local.topology.services.ingestion.cpu, max = local.topology.services.ingestion.max, memory = local.topology.services.ingestion.memory })
    )
    error_message = "A program has another size than its environment's, or than the topology's where that says nothing."
  }
  assert {
    condition     = module.service["loading"].scaling.max == 1 && module.program["loading"].size == ["512", "1024"] && module.program["operator"].size == ["512", "2048"]
    error_message = "Tasks are not of the size that was asked for."
  }
  assert {
    condition     = alltrue([for service in module.service : service.capacity == { FARGATE = [1, 1], FARGATE_SPOT = [0, 3] }])
    error_message = "A service has no task that Spot can't reclaim, or stops growing when Spot has no capacity."
  }
}

run "no_spot" {
  command = plan
  variables {
    has_spot            = false
    run_every_minutes   = 15
    prove_every_minutes = 15
  }
  assert {
    condition     = alltrue([for service in module.service : service.capacity == { FARGATE = [1, 1] }])
    error_message = "A task may still run on Spot."
  }
}

run "a_size_that_fargate_does_not_have_is_refused" {
  command = plan
  variables { sizes = { loading = { cpu = 256, memory = 4096 } } }
  expect_failures = [var.sizes]
}

run "a_run_every_half_minute_is_refused" {
  command = plan
  variables { run_every_minutes = 0.5 }
  expect_failures = [var.run_every_minutes]
}

run "more_zones_than_there_are_are_refused" {
  command = plan
  variables { new_network = { cidr = "10.64.0.0/20", zones = ["a"], task_zones = 2 } }
  expect_failures = [var.new_network]
}
