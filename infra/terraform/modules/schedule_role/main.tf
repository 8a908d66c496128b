# A group of schedules, and the role that EventBridge Scheduler may assume for these schedules of this account only.

variable "name" { type = string }
variable "account" { type = string }

variable "statements" {
  description = "What the schedules may do: the statements of an IAM policy."
  type        = any
}

resource "aws_scheduler_schedule_group" "this" {
  name = var.name
}

resource "aws_iam_role" "this" {
  name = var.name
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = { StringEquals = {
        "aws:SourceAccount" = var.account
        "aws:SourceArn"     = aws_scheduler_schedule_group.this.arn
      } }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  name   = "schedule"
  role   = aws_iam_role.this.id
  policy = jsonencode({ Version = "2012-10-17", Statement = var.statements })
}

output "group_name" { value = aws_scheduler_schedule_group.this.name }
output "arn" { value = aws_iam_role.this.arn }
output "policy" { value = aws_iam_role_policy.this.policy }
