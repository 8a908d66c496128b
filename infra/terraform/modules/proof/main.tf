# The scheduled proof: `starlift verify --record` as a task of the operator's image under a role of its own, with an alarm when the
# warehouse differs, and one when it has not been proved equal for a long time.

variable "name" { type = string }
variable "account" { type = string }
variable "region" { type = string }
variable "is_enabled" { type = bool }
variable "expression" { type = string }
variable "settle_s" { type = number }
variable "cluster_arn" { type = string }
variable "subnet_ids" { type = list(string) }
variable "security_group_id" { type = string }
variable "log_group_name" { type = string }
variable "namespace" { type = string }
variable "topic_arn" { type = string }
variable "silent_minutes" { type = number }

variable "sources" {
  description = "The sources that are proved, or an empty name for the only one: its name is not in the verdict."
  type        = set(string)
}

variable "family" {
  description = "The family of the operator's task definition; its newest revision runs, which the pipeline may have registered."
  type        = string
}

variable "execution_role_arn" {
  description = "The role with which ECS starts tasks of that task definition."
  type        = string
}

variable "trust" {
  description = "Who may assume the role of a task."
  type        = string
}

variable "statements" {
  description = "The permissions of a proof: the statements of an IAM policy."
  type        = any
}

locals {
  # By metric, the beginning of the verdict's sentence, and how it names its source.
  verdicts = merge(
    { "proof_different" = "\"DIFFERENT as of run\"" },
    { for source in var.sources : join(".", compact(["proof_equal", source])) => "\"EQUAL as of run\"${source == "" ? "" : " \"(source ${source})\""}" },
  )
}

resource "aws_iam_role" "task" {
  name               = "${var.name}-proof-task"
  assume_role_policy = var.trust
}

resource "aws_iam_role_policy" "task" {
  name   = "prove"
  role   = aws_iam_role.task.id
  policy = jsonencode({ Version = "2012-10-17", Statement = var.statements })
}

module "role" {
  source  = "../schedule_role"
  name    = "${var.name}-proof"
  account = var.account
  statements = [
    {
      Sid       = "Start"
      Effect    = "Allow"
      Action    = "ecs:RunTask"
      Resource  = ["arn:aws:ecs:${var.region}:${var.account}:task-definition/${var.family}:*"] # any revision, so that the newest one runs
      Condition = { ArnEquals = { "ecs:cluster" = var.cluster_arn } }
    },
    {
      Sid       = "PassRoles"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = [aws_iam_role.task.arn, var.execution_role_arn]
      Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
    },
  ]
}

resource "aws_scheduler_schedule" "this" {
  #checkov:skip=CKV_AWS_297:A schedule contains only a command; AWS's own key is enough.
  name                = "${var.name}-proof"
  group_name          = module.role.group_name
  schedule_expression = var.expression
  state               = var.is_enabled ? "ENABLED" : "DISABLED"

  flexible_time_window { mode = "OFF" }

  target { # the call itself: only this kind of target can replace the task's role
    arn      = "arn:aws:scheduler:::aws-sdk:ecs:runTask"
    role_arn = module.role.arn
    input = jsonencode({
      Cluster        = var.cluster_arn
      TaskDefinition = var.family
      LaunchType     = "FARGATE"
      StartedBy      = "${var.name}-proof"
      NetworkConfiguration = {
        AwsvpcConfiguration = { Subnets = var.subnet_ids, SecurityGroups = [var.security_group_id], AssignPublicIp = "DISABLED" }
      }
      Overrides = {
        TaskRoleArn        = aws_iam_role.task.arn
        ContainerOverrides = [{ Name = "main", Command = ["python", "-m", "services.operator", "verify", "--record", "--settle", tostring(var.settle_s)] }]
      }
    })

    retry_policy { # no retry: the next proof replaces one that could not start
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 1
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "verdict" {
  for_each       = local.verdicts
  name           = each.key
  log_group_name = var.log_group_name
  pattern        = each.value
  metric_transformation {
    namespace = var.namespace
    name      = "${var.name}.${each.key}"
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "different" {
  alarm_name          = "${var.name}-different"
  alarm_description   = "A proof found that the warehouse differs from the source. `starlift verify` lists the rows, `--repair` has them read again."
  namespace           = var.namespace
  metric_name         = "${var.name}.proof_different"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
  depends_on          = [aws_cloudwatch_log_metric_filter.verdict]
}

resource "aws_cloudwatch_metric_alarm" "unproved" {
  for_each            = var.is_enabled ? var.sources : toset([])
  alarm_name          = join("-", compact([var.name, each.key, "unproved"]))
  alarm_description   = "For ${var.silent_minutes} minutes no proof ${each.key == "" ? "" : "of source ${each.key} "}has found the warehouse equal, although the schedule is on: proofs fail, or rows are stuck. See docs/deploy.md."
  namespace           = var.namespace
  metric_name         = join(".", compact([var.name, "proof_equal", each.key]))
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = var.silent_minutes / 5
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
  depends_on          = [aws_cloudwatch_log_metric_filter.verdict]
}

# An alarm is created under its name and destroyed under it: a replaced one might be gone in the end.
moved {
  from = aws_cloudwatch_metric_alarm.unproved[0]
  to   = aws_cloudwatch_metric_alarm.unproved[""]
}

moved {
  from = aws_cloudwatch_log_metric_filter.verdict["equal"]
  to   = aws_cloudwatch_log_metric_filter.verdict["proof_equal"]
}

moved {
  from = aws_cloudwatch_log_metric_filter.verdict["different"]
  to   = aws_cloudwatch_log_metric_filter.verdict["proof_different"]
}

output "policy" { value = module.role.policy }
output "task_policy" { value = aws_iam_role_policy.task.policy }
output "task_role_arn" { value = aws_iam_role.task.arn }
output "expression" { value = aws_scheduler_schedule.this.schedule_expression }
output "unproved_minutes" { value = var.silent_minutes }
output "input" { value = aws_scheduler_schedule.this.target[0].input }
