# Values that are refused, and what the absence of a value means.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

variables {
  has_images = false
}

run "an_environment_has_a_short_name" {
  command = plan
  variables { environment = "The-Production" }
  expect_failures = [var.environment]
}

run "a_service_without_an_image_is_not_made" {
  command = plan
  assert {
    condition     = length(module.service) == 0 && length(module.program) == 4
    error_message = "The first apply makes the repositories, and nothing that would need an image."
  }
  assert {
    condition = alltrue(concat(
      [for state in module.schedule.states : state == "DISABLED"],
      [for alarms in module.service_alarms : length(alarms.silent_alarm_names) == 0],
    ))
    error_message = "Runs are asked for, or missed, before there is a service that could make them."
  }
}

run "a_service_with_an_image_is_asked" {
  command = plan
  variables { has_images = true }
  assert {
    condition     = alltrue([for state in module.schedule.states : state == "ENABLED"]) && length(module.service_alarms["ingestion"].silent_alarm_names) == 1
    error_message = "Nobody asks for runs, or nobody notices when there are none."
  }
}

run "a_network_of_yours_is_used" {
  command = plan
  variables {
    network        = { vpc_id = "vpc-1", cidr = "10.0.0.0/16", subnet_ids = ["subnet-a", "subnet-b"], route_table_ids = ["rtb-1"] }
    has_internet   = true
    database_cidrs = { source = ["192.168.7.0/24"] }
  }
  assert {
    condition     = length(module.network) == 0 && length(module.endpoints) == 0 && output.vpc_id == "vpc-1"
    error_message = "A network was made beside the one that was given."
  }
  assert {
    condition = jsonencode({ for name, egress in module.egress : name => egress.destinations }) == jsonencode({
      ingestion   = ["AWS", "source at 192.168.7.0/24"]
      loading     = ["AWS", "warehouse at 10.0.0.0/16"]
      operator    = ["AWS", "source at 192.168.7.0/24", "warehouse at 10.0.0.0/16"]
      remodelling = ["AWS"]
    })
    error_message = "A program reaches a database that it does not use, or not one that it uses."
  }
}

run "the_subject_of_a_repository_with_ids_is_trusted" {
  variables { github_repository = "example@1/starlift@2" }
  assert {
    condition = alltrue([
      for name, pipeline in module.pipeline :
      jsondecode(pipeline.trust).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == "repo:example@1/starlift@2:environment:test-${name}"
    ])
    error_message = "GitHub names repositories of today with their ids; a role that trusts another form can be taken by nobody."
  }
}

run "a_wildcard_is_no_repository" {
  command = plan
  variables { github_repository = "example@1/*" }
  expect_failures = [var.github_repository]
}

run "another_source_is_named_once" {
  command = plan
  variables { settings = { STARLIFT_SOURCE_NAME = "shop" } }
  assert {
    condition     = [for name, input in module.schedule.inputs : strcontains(input, "\"source_name\":\"shop\"")] == [true] && module.database_secret["source"].name == "starlift/test/sources/shop"
    error_message = "Runs of another source are asked for, or its login has another name."
  }
  assert {
    condition = alltrue([
      for name, bucket in module.bucket : contains(keys(bucket.expire_days), "shop/") && !contains(keys(bucket.expire_days), "totesys/") && length(bucket.expire_days) == length(local.topology.buckets[name].expire_days)
    ])
    error_message = "The objects of a source that is not the shipped one are kept forever."
  }
}

run "sources_that_the_scaling_cannot_count_are_refused" {
  command = plan
  variables { sources = ["a", "b", "c", "d"] }
  expect_failures = [var.sources]
}

run "two_contracts_are_refused" {
  command = plan
  variables {
    contract = "tests/terraform.tfvars" # any file
    settings = { STARLIFT_CONTRACT = "totesys" }
  }
  expect_failures = [var.contract]
}
