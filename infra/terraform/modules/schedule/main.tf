# Requests a run of a source at a fixed rate. Requests that can't be delivered go to a separate dead-letter queue.

variable "name" { type = string }
variable "account" { type = string }
variable "is_enabled" { type = bool }
variable "dead_letter_retention_s" { type = number }

variable "schedules" {
  description = "The schedules by name; each sends `message` to `queue_arn`."
  type        = map(object({ expression = string, queue_arn = string, message = any }))
}

resource "aws_sqs_queue" "dead_letter" {
  name                      = "${var.name}-schedule-dlq"
  message_retention_seconds = var.dead_letter_retention_s
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_policy" "tls_only" {
  queue_url = aws_sqs_queue.dead_letter.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "DenyPlainHttp"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.dead_letter.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

module "role" {
  source  = "../schedule_role"
  name    = "${var.name}-schedule"
  account = var.account
  statements = [{
    Sid      = "Send"
    Effect   = "Allow"
    Action   = "sqs:SendMessage"
    Resource = distinct(concat([for schedule in var.schedules : schedule.queue_arn], [aws_sqs_queue.dead_letter.arn]))
  }]
}

resource "aws_scheduler_schedule" "this" {
  #checkov:skip=CKV_AWS_297:A schedule contains only the name of a source; AWS's own key is enough.
  for_each            = var.schedules
  name                = each.key
  group_name          = module.role.group_name
  schedule_expression = each.value.expression
  state               = var.is_enabled ? "ENABLED" : "DISABLED"

  flexible_time_window { mode = "OFF" }

  target {
    arn      = each.value.queue_arn
    role_arn = module.role.arn
    input    = replace(replace(jsonencode(each.value.message), "\\u003c", "<"), "\\u003e", ">") # <aws.scheduler.…>, which jsonencode escapes

    retry_policy {
      maximum_event_age_in_seconds = 600 # the next request has the same effect
      maximum_retry_attempts       = 10
    }
    dead_letter_config { arn = aws_sqs_queue.dead_letter.arn }
  }
}

output "dead_letter_name" { value = aws_sqs_queue.dead_letter.name }
output "policy" { value = module.role.policy }
output "expressions" { value = { for name, schedule in aws_scheduler_schedule.this : name => schedule.schedule_expression } }
output "states" { value = [for schedule in aws_scheduler_schedule.this : schedule.state] }
output "inputs" { value = { for name, schedule in aws_scheduler_schedule.this : name => schedule.target[0].input } }
