# What roles may do: what their edges need, and nothing else.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

run "roles" {
  assert {
    condition = alltrue(flatten([
      for policy in concat([for program in module.program : program.task_policy], [for program in module.program : program.execution_policy], [for pipeline in module.pipeline : pipeline.policy], [module.schedule.policy, module.proof.policy, module.proof.task_policy]) : [
        for statement in jsondecode(policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*")]
      ]
    ]))
    error_message = "A role may do a kind of actions, not the actions that its program needs."
  }
  assert {
    condition = alltrue(flatten([
      for policy in concat([for program in module.program : program.task_policy], [for program in module.program : program.execution_policy], [for pipeline in module.pipeline : pipeline.policy], [module.schedule.policy, module.proof.policy, module.proof.task_policy]) : [
        for statement in jsondecode(policy).Statement :
        !contains(flatten([statement.Resource]), "*") || contains(["ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition"], try(tostring(statement.Action), "several")) ||
        statement.Action == "ecs:ListTasks" && try(statement.Condition.ArnEquals["ecs:cluster"], "") == module.cluster.arn
      ]
    ]))
    error_message = "A role may do something to everything. Only two actions know no resource: ecr:GetAuthorizationToken, ecs:DescribeTaskDefinition; a list of tasks is restricted by its cluster."
  }

  assert {
    condition = alltrue(flatten([
      for name, arns in {
        ingestion   = [local.sources_arn]
        remodelling = []
        loading     = [module.database_secret["warehouse"].arn]
        operator    = [module.database_secret["prover/source"].arn, module.database_secret["prover/warehouse"].arn]
        proof       = [module.database_secret["prover/source"].arn, module.database_secret["prover/warehouse"].arn]
        } : [
        for policy in [name == "proof" ? module.proof.task_policy : module.program[name].task_policy] :
        flatten([for statement in jsondecode(policy).Statement : statement.Resource if statement.Action == "secretsmanager:GetSecretValue"]) == arns
      ]
    ]))
    error_message = "A role reads the secret of a login that its program does not use, or can't read one that it uses."
  }
  assert {
    condition     = !anytrue([for program in module.program : strcontains(program.execution_policy, "secretsmanager")])
    error_message = "ECS would put a secret into the environment of a task, where a rotated password never arrives."
  }
  assert {
    condition     = alltrue([for secret in module.database_secret : startswith(secret.name, "starlift/test/")]) && startswith(module.database_secret["source"].name, "starlift/test/sources/")
    error_message = "A secret is not below the prefix of its installation."
  }

  assert {
    condition = alltrue(flatten([
      for name, service in local.topology.services : [
        for queue, made in module.queue : [
          strcontains(module.program[name].task_policy, "\"${made.arn}\"") == contains(concat([service.consumes], local.shared_queues[name], service.sends), queue),
          strcontains(module.program[name].task_policy, "\"${made.dead_letter_arn}\"") == contains(concat([service.consumes], local.shared_queues[name]), queue),
        ]
      ]
    ]))
    error_message = "A service's role reaches a queue that is none of its edges, or not one that is."
  }
  assert {
    condition = alltrue(flatten([
      for name, service in local.topology.services : [
        for statement in jsondecode(module.program[name].task_policy).Statement :
        !contains(flatten([statement.Action]), "sqs:ReceiveMessage") || flatten([statement.Resource]) == [for queue in concat([service.consumes], local.shared_queues[name]) : module.queue[queue].arn]
      ]
    ]))
    error_message = "A service's role receives from a queue that the service does not consume."
  }

  assert {
    condition = alltrue(flatten([
      for name, program in merge(local.programs, { proof = local.topology.proof }) : [
        for action, objects in {
          "s3:GetObject" = [for bucket in program.reads : "${module.bucket[bucket].arn}/*"]
          "s3:PutObject" = flatten([for bucket, keys in program.writes : [for key in keys : "${module.bucket[bucket].arn}/${key}"]])
        } :
        toset(flatten([
          for statement in jsondecode(name == "proof" ? module.proof.task_policy : module.program[name].task_policy).Statement : statement.Resource if statement.Action == action
        ])) == toset(objects)
      ]
    ]))
    error_message = "A role reads a bucket, or writes objects, against the topology."
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
      statement.Action == "ecs:RunTask" ? alltrue([for arn in statement.Resource : strcontains(arn, ":task-definition/${module.program["operator"].family}")]) : toset(statement.Resource) == toset([module.proof.task_role_arn, module.program["operator"].execution_role_arn])
    ])
    error_message = "The proof's schedule may start another program than the operator's, or pass on another role."
  }
  assert {
    condition     = jsondecode(module.proof.input).Overrides.ContainerOverrides[0].Command == ["python", "-m", "services.operator", "verify", "--record", "--settle", "150"]
    error_message = "The proof's schedule runs another command than `starlift verify --record`."
  }
  assert {
    condition     = jsondecode(module.proof.input).Overrides.TaskRoleArn == module.proof.task_role_arn
    error_message = "The proof that is scheduled runs with the operator's role."
  }
  assert {
    condition     = !strcontains(module.proof.task_policy, "sqs:SendMessage") && !strcontains(module.proof.task_policy, "sqs:DeleteMessage")
    error_message = "A proof may change what is on its way: it only looks."
  }
}

run "a_managed_secret_replaces_ours" {
  command = plan
  variables {
    managed_secrets = {
      warehouse = {
        arn         = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:rds!db-1-AbCdEf"
        url         = "postgresql://warehouse.example.com:5432/warehouse?sslmode=verify-full"
        kms_key_arn = "arn:aws:kms:eu-west-2:123456789012:key/1"
      }
    }
  }
  assert {
    condition     = !contains(keys(module.database_secret), "warehouse") && contains(keys(module.database_secret), "prover/warehouse")
    error_message = "A secret was made beside the one that is managed."
  }
  assert {
    condition = alltrue([
      for name, grants in { loading = ["warehouse.example.com", "rds!db-1"], operator = [] } : alltrue([
        for text in ["warehouse.example.com", "rds!db-1"] :
        strcontains(module.program[name].container_definitions, text) == contains(grants, text)
      ])
    ])
    error_message = "The loader does not read the managed secret, or another program does."
  }
  assert {
    condition = [
      for statement in jsondecode(module.program["loading"].task_policy).Statement : [statement.Resource, statement.Condition.StringEquals["kms:ViaService"]]
      if statement.Action == "kms:Decrypt"
    ] == [["arn:aws:kms:eu-west-2:123456789012:key/1", "secretsmanager.eu-west-2.amazonaws.com"]]
    error_message = "The loader can't decrypt the managed secret, or may use its key for something else."
  }
}

run "a_login_in_plain_sight_is_refused" {
  command = plan
  variables {
    managed_secrets = { warehouse = { arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:x-AbCdEf", url = "postgresql://me:secret@warehouse.example.com/warehouse" } }
  }
  expect_failures = [var.managed_secrets]
}
