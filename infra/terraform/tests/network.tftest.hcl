# What leaves the network: to S3, and mail.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

run "network" {
  variables { contract = "tests/terraform.tfvars" } # any file
  assert {
    condition = toset(flatten([for statement in jsondecode(module.endpoints[0].s3_policy).Statement : statement.Resource if !strcontains(jsonencode(statement.Resource), "starport")])) == toset(
      flatten([for bucket in concat(values(module.bucket), module.contract_bucket) : [bucket.arn, "${bucket.arn}/*"]]),
    )
    error_message = "Tasks reach another bucket than ours and ECR's, or not all of ours."
  }
  assert {
    condition     = anytrue([for statement in jsondecode(module.endpoints[0].s3_policy).Statement : jsonencode(statement.Resource) == jsonencode("arn:aws:s3:::prod-eu-west-2-starport-layer-bucket/*")])
    error_message = "Tasks can't pull the layers of their images."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(module.endpoints[0].s3_policy).Statement :
      !strcontains(jsonencode(statement.Resource), "starport") || jsonencode(statement.Action) == jsonencode("s3:GetObject")
    ])
    error_message = "More than reading layers is let through to ECR's bucket."
  }
  assert {
    condition = alltrue([
      for document in [module.alarm_topic.policy, module.alarm_topic.key_policy] :
      toset(compact([for statement in jsondecode(document).Statement : lookup(statement.Principal, "Service", "")])) == toset(["cloudwatch.amazonaws.com", "events.amazonaws.com"])
    ])
    error_message = "Alarms or findings don't reach the topic, or another service's mail does."
  }
  assert {
    condition     = !anytrue([for statement in jsondecode(module.alarm_topic.key_policy).Statement : lookup(statement.Principal, "Service", "") == "events.amazonaws.com" && contains(keys(statement), "Condition")])
    error_message = "EventBridge uses the key without a condition that could hold: every finding would be lost unseen."
  }
  assert {
    condition     = toset(jsondecode(module.image_findings.pattern).detail["repository-name"]) == toset([for program in module.program : program.family])
    error_message = "The findings of an image are not mailed to anyone."
  }
  assert {
    condition     = flatten([for one in jsondecode(module.image_findings.pattern).detail["$or"] : keys(one["finding-severity-counts"])]) == ["CRITICAL", "HIGH"]
    error_message = "A finding of severity HIGH or CRITICAL is not mailed to anyone."
  }
}
