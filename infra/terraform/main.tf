# Everything that Starlift needs in one account and region. Queues, buckets, services and schedules are those of topology.json,
# which the local stack also reads.

data "aws_caller_identity" "current" {}

locals {
  topology = jsondecode(file("${path.module}/../topology.json"))
  name     = coalesce(var.name, local.topology.name)
  stack    = "${var.environment}-${local.account}" # bucket names are unique across AWS
  account  = data.aws_caller_identity.current.account_id
  region   = local.topology.region

  # Each further source has its own queues, schedule and secret, whose names end with the source's name, like those of its variables
  # (shared/settings.py); those of the main source have no such end.
  main    = values(local.topology.schedules)[0]
  sources = concat([lookup(var.settings, "STARLIFT_SOURCE_NAME", local.main.source)], var.sources)
  ends    = merge({ "" = "" }, { for source in var.sources : "-${source}" => "_${upper(source)}" })
  queues  = merge([for end in keys(local.ends) : { for name, queue in local.topology.queues : "${name}${end}" => queue }]...)
  schedules = merge(
    { for name, schedule in local.topology.schedules : name => merge(schedule, { source = local.sources[0] }) },
    { for source in var.sources : "ingest-${source}" => merge(local.main, { source = source, queue = "${local.main.queue}-${source}" }) },
  )

  every = var.run_every_minutes == null ? "" : "rate(${var.run_every_minutes} minute${var.run_every_minutes == 1 ? "" : "s"})"
  runs  = { for name, schedule in local.schedules : name => coalesce(local.every, schedule.expression) }
  proof = var.prove_every_minutes == null ? local.topology.proof.expression : "rate(${var.prove_every_minutes} minutes)"
  # How far apart the runs, and the proofs, are; what is not a rate in minutes counts as hourly.
  minutes       = { for expression in toset(concat(values(local.runs), [local.proof])) : expression => try(tonumber(regex("^rate\\((\\d+) minutes?\\)$", expression)[0]), 60) }
  run_minutes   = max([for expression in values(local.runs) : local.minutes[expression]]...)
  proof_minutes = local.minutes[local.proof]

  is_scheduled = var.is_scheduled && var.has_images # before there are images, no service would answer
}

module "queue" {
  source                  = "./modules/queue"
  for_each                = local.queues
  name                    = "${local.name}-${each.key}"
  visibility_timeout_s    = each.value.visibility_timeout_s
  max_receive_count       = each.value.max_receive_count
  retention_s             = each.value.retention_s
  message_bytes           = local.topology.message_bytes
  dead_letter_suffix      = local.topology.dead_letter_suffix
  dead_letter_retention_s = local.topology.dead_letter_retention_s
}

module "bucket" {
  source   = "./modules/bucket"
  for_each = local.topology.buckets
  name     = "${local.name}-${each.key}-${local.stack}"
  expire_days = merge(
    { for prefix, days in each.value.expire_days : prefix => days if prefix != "${local.main.source}/" },
    { for source in local.sources : "${source}/" => each.value.expire_days["${local.main.source}/"] },
  )
  noncurrent_days               = each.value.noncurrent_days
  may_be_destroyed_with_objects = var.may_destroy_data
}

module "schedule" {
  source                  = "./modules/schedule"
  name                    = local.name
  account                 = local.account
  is_enabled              = local.is_scheduled
  dead_letter_retention_s = local.topology.dead_letter_retention_s
  schedules = {
    for name, schedule in local.schedules : name => {
      expression = local.runs[name]
      queue_arn  = module.queue[schedule.queue].arn
      # EventBridge Scheduler can generate neither a UUID nor a trace: the id names the schedule, and id and source together are
      # unique, as CloudEvents requires.
      message = {
        specversion     = "1.0"
        id              = uuidv5("url", "${local.name}/${var.environment}/${name}")
        source          = "${local.name}/schedule/<aws.scheduler.execution-id>"
        type            = "starlift.ingest_source.v1"
        time            = "<aws.scheduler.scheduled-time>"
        datacontenttype = "application/json"
        data            = { source_name = schedule.source, mode = "changes", trigger = "schedule" }
      }
    }
  }
}

module "cluster" {
  source = "./modules/cluster"
  name   = local.name
}
