# The alarms, and the topic that they are published to.

module "alarm_topic" {
  source  = "./modules/alarm_topic"
  name    = local.name
  account = local.account
  email   = var.alarm_email
}

module "image_findings" {
  source           = "./modules/image_findings"
  name             = local.name
  repository_names = [for program in module.program : program.family]
  topic_arn        = module.alarm_topic.arn
}

module "queue_alarms" {
  source           = "./modules/queue_alarms"
  for_each         = module.queue
  queue_name       = each.value.name
  dead_letter_name = each.value.dead_letter_name
  oldest_message_s = local.topology.alarms.oldest_message_s
  topic_arn        = module.alarm_topic.arn
}

module "schedule_alarm" {
  source           = "./modules/queue_alarms"
  dead_letter_name = module.schedule.dead_letter_name
  topic_arn        = module.alarm_topic.arn
}

module "service_alarms" {
  source         = "./modules/service_alarms"
  for_each       = local.topology.services
  name           = "${local.name}-${each.key}"
  namespace      = local.name
  log_group_name = module.program[each.key].log_group_name
  topic_arn      = module.alarm_topic.arn
  silent_minutes = local.is_scheduled && each.value.consumes == local.main.queue ? local.silent_minutes : {}
  has_refusals   = local.is_delivered && each.value.consumes == local.main.queue
}

module "proof" {
  source             = "./modules/proof"
  name               = local.name
  account            = local.account
  region             = local.region
  is_enabled         = local.is_scheduled
  expression         = local.proof
  settle_s           = 120 * local.run_minutes + 30 # until the run after the next one is loaded
  cluster_arn        = module.cluster.arn
  family             = module.program["operator"].family
  execution_role_arn = module.program["operator"].execution_role_arn
  trust              = module.program["operator"].trust
  statements         = concat(local.statements_of_proof, local.statements_of_data["proof"], local.contract_statements)
  subnet_ids         = local.network.subnet_ids
  security_group_id  = module.program["operator"].security_group_id
  log_group_name     = module.program["operator"].log_group_name
  namespace          = local.name
  topic_arn          = module.alarm_topic.arn
  silent_minutes     = 5 * ceil(max(local.topology.alarms.unproved_minutes, 4 * local.proof_minutes) / 5)
  sources            = keys(local.silent_minutes)
}

locals {
  # By source, how long nothing may happen although its schedule is on: a message that finds no new file is also done. Logs name
  # the source only if there are several.
  silent_minutes = {
    for schedule in values(local.schedules) :
    (length(local.sources) > 1 ? schedule.source : "") => 5 * ceil(max(local.topology.alarms.silent_minutes, 3 * local.minutes[schedule.expression]) / 5)
  }
}
