# A service's health, from its own log: {"event": "message_done", ...} becomes a metric, without an agent.

variable "name" { type = string }
variable "namespace" { type = string }
variable "log_group_name" { type = string }
variable "topic_arn" { type = string }

variable "silent_minutes" {
  description = "How many minutes the service may do nothing before the alarm; null where idleness is normal."
  type        = number
  default     = null
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

resource "aws_cloudwatch_metric_alarm" "silent" {
  count               = var.silent_minutes == null ? 0 : 1
  alarm_name          = "${var.name}-silent"
  alarm_description   = "${var.name} has done nothing for ${var.silent_minutes} minutes, although its schedule is on."
  namespace           = var.namespace
  metric_name         = "${var.name}.message_done"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = var.silent_minutes / 5
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching" # silence is the failure
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
  depends_on          = [aws_cloudwatch_log_metric_filter.event]
}

output "silent_alarm_names" { value = aws_cloudwatch_metric_alarm.silent[*].alarm_name }
output "rollback_alarm_names" { value = [for alarm in aws_cloudwatch_metric_alarm.failing : alarm.alarm_name] }
