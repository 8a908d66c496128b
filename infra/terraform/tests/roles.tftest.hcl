# What roles may do: what their edges need, and nothing else.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

run "roles" {
  assert {
    condition = alltrue(flatten([
      for policy in concat([for program in module.program : program.task_policy], [for program in module.program : program.execution_policy], [for pipeline in module.pipeline : pipeline.policy], [module.schedule.policy, module.proof.policy]) : [
        for statement in jsondecode(policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*")]
      ]
    ]))
    error_message = "A role may do a kind of actions, not the actions that its program needs."
  }
  assert {
    condition = alltrue(flatten([
      for policy in concat([for program in module.program : program.task_policy], [for program in module.program : program.execution_policy], [for pipeline in module.pipeline : pipeline.policy], [module.schedule.policy, module.proof.policy]) : [
        for statement in jsondecode(policy).Statement :
        !contains(flatten([statement.Resource]), "*") || contains(["ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition"], try(tostring(statement.Action), "several"))
      ]
    ]))
    error_message = "A role may do something to everything. Only two actions know no resource: ecr:GetAuthorizationToken, ecs:DescribeTaskDefinition."
  }

  assert {
    condition = alltrue(flatten([
      for name, program in module.program : [
        for secret, kept in module.database_secret :
        strcontains(program.task_policy, kept.arn) == contains(local.programs[name].secrets, secret) && !strcontains(program.execution_policy, kept.arn)
      ]
    ]))
    error_message = "A role reads the secret of a database that its program does not use, or can't read one that it uses."
  }

  assert {
    condition = alltrue(flatten([
      for name, service in local.topology.services : [
        for queue, made in module.queue : [
          strcontains(module.program[name].task_policy, "\"${made.arn}\"") == contains(concat([service.consumes], service.sends), queue),
          strcontains(module.program[name].task_policy, "\"${made.dead_letter_arn}\"") == (service.consumes == queue),
        ]
      ]
    ]))
    error_message = "A service's role reaches a queue that is none of its edges, or not one that is."
  }
  assert {
    condition = alltrue(flatten([
      for name, service in local.topology.services : [
        for statement in jsondecode(module.program[name].task_policy).Statement :
        !contains(flatten([statement.Action]), "sqs:ReceiveMessage") || flatten([statement.Resource]) == [module.queue[service.consumes].arn]
      ]
    ]))
    error_message = "A service's role receives from a queue that the service does not consume."
  }

  assert {
    condition = alltrue(flatten([
      for name, program in local.programs : [
        for bucket, made in module.bucket : [
          for action, buckets in { "s3:GetObject" = program.reads, "s3:PutObject" = program.writes } :
          contains(flatten([for statement in jsondecode(module.program[name].task_policy).Statement : flatten([statement.Resource]) if flatten([statement.Action]) == [action]]), "${made.arn}/*") == contains(buckets, bucket)
        ]
      ]
    ]))
    error_message = "A role reads or writes a bucket against the topology."
  }

  assert {
    condition = alltrue([
      for name, pipeline in module.pipeline :
      jsondecode(pipeline.trust).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == "repo:example/starlift:environment:test-${name}"
    ])
    error_message = "A pipeline's role can be taken by another job than that of its program and environment."
  }
}

run "proof" {
  command = plan # of what is there

  assert {
    condition = alltrue([
      for statement in jsondecode(module.proof.policy).Statement :
      statement.Action == "ecs:RunTask" ? alltrue([for arn in statement.Resource : strcontains(arn, ":task-definition/${module.program["operator"].family}")]) : toset(statement.Resource) == toset(module.program["operator"].role_arns)
    ])
    error_message = "The proof's schedule may start another program than the operator's, or pass on another role."
  }
  assert {
    condition     = jsondecode(module.proof.input).containerOverrides[0].command == ["python", "-m", "services.operator", "verify", "--record", "--settle", "150"]
    error_message = "The proof's schedule runs another command than `starlift verify --record`."
  }
}
