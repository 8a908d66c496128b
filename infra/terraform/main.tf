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
  main        = values(local.topology.schedules)[0]
  main_source = lookup(var.settings, "STARLIFT_SOURCE_NAME", local.main.source)
  sources = {
    for name in distinct(concat([local.main_source], keys(local.declared), var.sources)) : name => merge(
      { kind = "database", datasets = [] },
      try(local.declared[name], {}),
      name == local.main_source ? { end = "", variable = "" } : { end = "-${name}", variable = "_${upper(name)}" },
    )
  }
  ends   = { for source in values(local.sources) : source.end => source.variable }
  queues = merge([for end in keys(local.ends) : { for name, queue in local.topology.queues : "${name}${end}" => queue }]...)

  # By data set of files, the queue on which its files are announced.
  drop_zone = merge([for source in values(local.sources) : { for dataset in source.datasets : dataset => "${local.main.queue}${source.end}" }]...)

  every = var.run_every_minutes == null ? "" : "rate(${var.run_every_minutes} minute${var.run_every_minutes == 1 ? "" : "s"})"
  schedules = {
    for name, source in local.sources : (source.end == "" ? keys(local.topology.schedules)[0] : "ingest-${name}") => {
      source     = name
      queue      = "${local.main.queue}${source.end}"
      expression = source.kind == "database" ? coalesce(local.every, local.main.expression) : local.topology.delivered[source.kind]
    }
  }
  proof = var.prove_every_minutes == null ? local.topology.proof.expression : "rate(${var.prove_every_minutes} minutes)"
  # How far apart the runs, and the proofs, are; what is not a rate in minutes counts as hourly.
  minutes       = { for expression in toset(concat([for schedule in values(local.schedules) : schedule.expression], [local.proof])) : expression => try(tonumber(regex("^rate\\((\\d+) minutes?\\)$", expression)[0]), 60) }
  run_minutes   = max(1, [for schedule in values(local.schedules) : local.minutes[schedule.expression] if local.sources[schedule.source].kind == "database"]...)
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
  announcer               = contains(values(local.drop_zone), each.key) ? { bucket_arn = module.bucket["landing"].arn, account = local.account } : null
}

module "drop_zone" {
  source      = "./modules/drop_zone"
  count       = length(local.drop_zone) > 0 ? 1 : 0
  bucket_name = module.bucket["landing"].name
  bucket_arn  = module.bucket["landing"].arn
  queue_arns  = { for dataset, queue in local.drop_zone : dataset => module.queue[queue].arn }
  depends_on  = [module.queue] # S3 sends a test event before it accepts the configuration
}

module "bucket" {
  source   = "./modules/bucket"
  for_each = local.topology.buckets
  name     = "${local.name}-${each.key}-${local.stack}"
  expire_days = merge(
    { for prefix, days in each.value.expire_days : prefix => days if prefix != "${local.main.source}/" },
    { for name, source in local.sources : "${name}/" => each.value.expire_days["${local.main.source}/"] if source.kind == "database" || each.key != "landing" },
  )
  superseded_days               = try(each.value.superseded_days, null)
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
      expression = schedule.expression
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
