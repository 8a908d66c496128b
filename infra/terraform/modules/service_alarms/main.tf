# A service's health, from its own log: {"event": "message_done", ...} becomes a metric, without an agent.

variable "name" { type = string }
variable "namespace" { type = string }
variable "log_group_name" { type = string }
variable "topic_arn" { type = string }

variable "silent_minutes" {
  description = "How many minutes the service may do nothing before the alarm, by source, or for the only source under an empty name; none where idleness is normal."
  type        = map(number)
  default     = {}
}

variable "has_refusals" {
  description = "Whether the service takes files or answers of APIs, which it may refuse."
  type        = bool
  default     = false
}

locals {
  events = toset(["message_dead_lettered", "message_done", "message_retried"])
  # The maximum in five minutes; if a deployment exceeds it, it is rolled back.
  tolerated = { message_dead_lettered = 0, message_retried = 10 }
}

resource "aws_cloudwatch_log_metric_filter" "event" {
  for_each       = local.events
  name           = each.key
  log_group_name = var.log_group_name
  pattern        = "{ $.event = \"${each.key}\" }"
  metric_transformation {
    namespace     = var.namespace
    name          = "${var.name}.${each.key}"
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "failing" {
  for_each            = local.tolerated
  alarm_name          = "${var.name}-${replace(each.key, "_", "-")}"
  alarm_description   = "${var.name} logged ${each.key} more than ${each.value} times in five minutes. See docs/deploy.md, \"When an alarm is raised\"."
  namespace           = var.namespace
  metric_name         = "${var.name}.${each.key}"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
  depends_on          = [aws_cloudwatch_log_metric_filter.event]
}

resource "aws_cloudwatch_log_metric_filter" "of_source" {
  for_each       = toset([for source in keys(var.silent_minutes) : source if source != ""])
  name           = "message_done.${each.key}"
  log_group_name = var.log_group_name
  pattern        = "{ $.event = \"message_done\" && $.source = \"${each.key}\" }"
  metric_transformation {
    namespace     = var.namespace
    name          = "${var.name}.message_done.${each.key}"
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "silent" {
  for_each            = var.silent_minutes
  alarm_name          = join("-", compact([var.name, each.key, "silent"]))
  alarm_description   = "${var.name} has done nothing ${each.key == "" ? "" : "for source ${each.key} "}for ${each.value} minutes, although its schedule is on."
  namespace           = var.namespace
  metric_name         = join(".", compact([var.name, "message_done", each.key]))
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = each.value / 5
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching" # silence is the failure
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
  depends_on          = [aws_cloudwatch_log_metric_filter.event, aws_cloudwatch_log_metric_filter.of_source]
}

resource "aws_cloudwatch_log_metric_filter" "refused" {
  count          = var.has_refusals ? 1 : 0
  name           = "delivery_refused"
  log_group_name = var.log_group_name
  pattern        = "{ $.event = \"delivery_refused\" }"
  metric_transformation {
    namespace     = var.namespace
    name          = "${var.name}.delivery_refused"
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "refused" {
  count               = var.has_refusals ? 1 : 0
  alarm_name          = "${var.name}-delivery-refused"
  alarm_description   = "A file, or an answer of an API, was refused as a whole: `starlift files` prints why. See docs/deploy.md."
  namespace           = var.namespace
  metric_name         = "${var.name}.delivery_refused"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
  depends_on          = [aws_cloudwatch_log_metric_filter.refused]
}

# An alarm is created under its name and destroyed under it: a replaced one might be gone in the end.
moved {
  from = aws_cloudwatch_metric_alarm.silent[0]
  to   = aws_cloudwatch_metric_alarm.silent[""]
}

output "silent_alarm_names" { value = [for alarm in aws_cloudwatch_metric_alarm.silent : alarm.alarm_name] }
output "rollback_alarm_names" { value = [for alarm in aws_cloudwatch_metric_alarm.failing : alarm.alarm_name] }
