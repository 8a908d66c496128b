# The services, and the operator's commands. The permissions of each follow from the topology's edges and the calls of the code.

locals {
  programs = merge(local.topology.services, { operator = local.topology.operator })
  sizes = {
    for name, program in local.programs : name => {
      cpu    = try(var.sizes[name].cpu, program.cpu)
      memory = try(var.sizes[name].memory, program.memory)
      max    = try(coalesce(var.sizes[name].max), program.max, 1)
    }
  }

  everyone = merge(
    { STARLIFT_REGION = local.region },
    { for name, bucket in module.bucket : "STARLIFT_${upper(name)}_BUCKET" => bucket.name },
    local.contract_environment,
    var.settings,
  )

  shared_queues = { for name, service in local.topology.services : name => compact([lookup(service, "shares", null)]) }

  consumed_queues = {
    for name, service in local.topology.services :
    name => flatten([for queue in concat([service.consumes], local.shared_queues[name]) : [for end in keys(local.ends) : "${queue}${end}"]])
  }
  sent_queues = { for name, service in local.topology.services : name => flatten([for queue in service.sends : [for end in keys(local.ends) : "${queue}${end}"]]) }

  environment_of_service = {
    for name, service in local.topology.services : name => merge(
      {
        STARLIFT_SLOTS                = tostring(service.slots)
        STARLIFT_HANDLER_LIMIT_S      = tostring(service.handler_limit_s)
        STARLIFT_ATTEMPTS             = tostring(local.topology.attempts)
        STARLIFT_MAX_RECEIVE_COUNT    = tostring(local.topology.queues[service.consumes].max_receive_count)
        STARLIFT_VISIBILITY_TIMEOUT_S = tostring(local.topology.queues[service.consumes].visibility_timeout_s)
        STARLIFT_DRAIN_BUDGET_S       = tostring(local.topology.drain_budget_s)
        STARLIFT_STOP_TIMEOUT_S       = tostring(local.topology.stop_timeout_s)
      },
      { for end, variable in local.ends : "STARLIFT_QUEUE_URL${variable}" => module.queue["${service.consumes}${end}"].url },
      { for end, variable in local.ends : "STARLIFT_DEAD_LETTER_URL${variable}" => module.queue["${service.consumes}${end}"].dead_letter_url },
      { for secret in service.secrets : "STARLIFT_API_SECRETS" => "${local.installation}/sources/" if secret == "source" },
      merge([for queue in service.sends : { for end, variable in local.ends : "STARLIFT_NEXT_QUEUE_URL${variable}" => module.queue["${queue}${end}"].url }]...),
      merge([for queue in local.shared_queues[name] : { for end, variable in local.ends : "STARLIFT_SHARED_QUEUE_URL${variable}" => module.queue["${queue}${end}"].url }]...),
      merge([for queue in local.shared_queues[name] : { for end, variable in local.ends : "STARLIFT_SHARED_DEAD_LETTER_URL${variable}" => module.queue["${queue}${end}"].dead_letter_url }]...),
    )
  }

  environment_of_operator = merge([
    for end, variable in local.ends : merge(
      { for name in keys(local.topology.queues) : "STARLIFT_${upper(name)}_QUEUE_URL${variable}" => module.queue["${name}${end}"].url },
      { for name in keys(local.topology.queues) : "STARLIFT_${upper(name)}_DEAD_LETTER_URL${variable}" => module.queue["${name}${end}"].dead_letter_url },
    )
  ]...)

  environments = merge(local.environment_of_service, { operator = local.environment_of_operator })

  statements_of_service = {
    for name, service in local.topology.services : name => [
      {
        Sid      = "Consume" # and send deferred messages again
        Effect   = "Allow"
        Resource = [for queue in local.consumed_queues[name] : module.queue[queue].arn]
        Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"]
      },
      {
        Sid    = "Send"
        Effect = "Allow"
        Resource = concat(
          [for queue in local.consumed_queues[name] : module.queue[queue].dead_letter_arn],
          [for queue in local.sent_queues[name] : module.queue[queue].arn],
        )
        Action = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
      },
      {
        Sid      = "ProtectWhileWorking"
        Effect   = "Allow"
        Resource = replace("${module.cluster.arn}/*", ":cluster/", ":task/")
        Action   = ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"]
      },
    ]
  }

  statements_of_operator = [
    {
      Sid      = "Send"
      Effect   = "Allow"
      Resource = [for queue in module.queue : queue.arn]
      Action   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    },
    {
      Sid      = "RepairDeadLetters"
      Effect   = "Allow"
      Resource = [for queue in module.queue : queue.dead_letter_arn]
      Action = [
        "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage",
      ]
    },
  ]

  # A proof looks up which of the rows that it misses are in a dead letter, and returns the letters to their queue.
  statements_of_proof = [{
    Sid      = "LookAtDeadLetters"
    Effect   = "Allow"
    Resource = [for queue in module.queue : queue.dead_letter_arn]
    Action   = ["sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
  }]

  # S3 answers 404 for a missing object only to roles that may list the bucket; others get 403.
  statements_of_data = {
    for name, program in merge(local.programs, { proof = local.topology.proof }) : name => concat(
      [for bucket in distinct(concat(program.reads, keys(program.writes))) : { Sid = "List${title(bucket)}", Effect = "Allow", Action = "s3:ListBucket", Resource = module.bucket[bucket].arn }],
      [for bucket in program.reads : { Sid = "Read${title(bucket)}", Effect = "Allow", Action = "s3:GetObject", Resource = "${module.bucket[bucket].arn}/*" }],
      [for bucket, keys in program.writes : { Sid = "Write${title(bucket)}", Effect = "Allow", Action = "s3:PutObject", Resource = [for key in keys : "${module.bucket[bucket].arn}/${key}"] }],
      [for bucket, keys in try(program.versions, {}) : { Sid = "ListVersions${title(bucket)}", Effect = "Allow", Action = "s3:ListBucketVersions", Resource = module.bucket[bucket].arn, Condition = { StringLike = { "s3:prefix" = keys } } }],
      [for bucket, keys in try(program.versions, {}) : { Sid = "ReadVersions${title(bucket)}", Effect = "Allow", Action = "s3:GetObjectVersion", Resource = [for key in keys : "${module.bucket[bucket].arn}/${key}"] }],
      [for bucket, keys in try(program.tags, {}) : { Sid = "Tag${title(bucket)}", Effect = "Allow", Action = "s3:PutObjectTagging", Resource = [for key in keys : "${module.bucket[bucket].arn}/${key}"] }],
      [for arns in [distinct(concat(flatten([for login in local.logins[name] : login.arns]), length(local.api_secrets) > 0 && name == "ingestion" ? [local.sources_arn] : []))] : { Sid = "LogIn", Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = arns } if length(arns) > 0],
      [for key in distinct(compact([for login in local.logins[name] : login.kms_key_arn])) : {
        Sid       = "Decrypt${substr(sha256(key), 0, 8)}"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = key
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${local.region}.amazonaws.com" } }
      }],
    )
  }

  statements = {
    for name, program in local.programs : name => concat(lookup(local.statements_of_service, name, local.statements_of_operator), local.statements_of_data[name], local.contract_statements)
  }
}

module "program" {
  source                       = "./modules/program"
  for_each                     = local.programs
  name                         = "${local.name}-${each.key}"
  cluster                      = local.name
  region                       = local.region
  account                      = local.account
  vpc_id                       = local.network.vpc_id
  cpu                          = local.sizes[each.key].cpu
  memory                       = local.sizes[each.key].memory
  stop_timeout_s               = local.topology.stop_timeout_s
  log_retention_days           = var.log_retention_days
  may_be_destroyed_with_images = var.may_destroy_data
  has_image                    = var.has_images
  is_service                   = contains(keys(local.topology.services), each.key)
  statements                   = local.statements[each.key]
  environment = merge(
    local.everyone,
    local.environments[each.key],
    { for database, login in local.logins[each.key] : "STARLIFT_${upper(split("-", database)[0])}_SECRET${local.database_ends[database]}" => login.id },
    { for database, login in local.logins[each.key] : "STARLIFT_${upper(split("-", database)[0])}_URL${local.database_ends[database]}" => login.url if login.url != null },
  )
}

module "service" {
  source               = "./modules/service"
  for_each             = { for name, service in local.topology.services : name => service if var.has_images }
  name                 = each.key
  cluster_name         = module.cluster.name
  cluster_arn          = module.cluster.arn
  task_definition_arn  = module.program[each.key].task_definition_arn
  subnet_ids           = local.network.subnet_ids
  security_group_id    = module.program[each.key].security_group_id
  queue_names          = [for end in keys(local.ends) : module.queue["${coalesce(one(local.shared_queues[each.key]), each.value.consumes)}${end}"].name]
  min                  = each.value.min
  max                  = local.sizes[each.key].max
  has_spot             = var.has_spot
  backlog_per_task     = each.value.backlog_per_task
  rollback_alarm_names = module.service_alarms[each.key].rollback_alarm_names
  topic_arn            = module.alarm_topic.arn
  # A task can't start without its roles, access to AWS, and the capacity provider for Spot.
  depends_on = [module.program, module.network, module.endpoints, module.egress, module.cluster]
}
