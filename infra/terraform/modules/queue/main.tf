# A queue and its dead-letter queue, which no other queue may use.

variable "name" { type = string }
variable "visibility_timeout_s" { type = number }
variable "max_receive_count" { type = number }
variable "retention_s" { type = number }
variable "message_bytes" { type = number }
variable "dead_letter_suffix" { type = string }
variable "dead_letter_retention_s" { type = number }

variable "announcer" {
  description = "The bucket, and its account, that announces its objects on the queue. S3 needs no key: the queue is encrypted with SQS's own."
  type        = object({ bucket_arn = string, account = string })
  default     = null
}

resource "aws_sqs_queue" "this" {
  name                       = var.name
  visibility_timeout_seconds = var.visibility_timeout_s
  message_retention_seconds  = var.retention_s
  max_message_size           = var.message_bytes
  sqs_managed_sse_enabled    = true
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter.arn
    maxReceiveCount     = var.max_receive_count
  })
}

resource "aws_sqs_queue" "dead_letter" {
  name                      = "${var.name}${var.dead_letter_suffix}"
  message_retention_seconds = var.dead_letter_retention_s
  max_message_size          = var.message_bytes
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_redrive_allow_policy" "this" { # a separate resource: as an argument of the dead-letter queue it would be a cycle
  queue_url = aws_sqs_queue.dead_letter.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.this.arn]
  })
}

resource "aws_sqs_queue_policy" "tls_only" { # a queue has one policy: the bucket's permission is part of it
  for_each  = { queue = aws_sqs_queue.this, dead_letter = aws_sqs_queue.dead_letter }
  queue_url = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "DenyPlainHttp"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = each.value.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }],
      [for announcer in each.key == "queue" && var.announcer != null ? [var.announcer] : [] : {
        Sid       = "AnnounceFiles"
        Effect    = "Allow"
        Principal = { Service = "s3.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = each.value.arn
        Condition = { ArnEquals = { "aws:SourceArn" = announcer.bucket_arn }, StringEquals = { "aws:SourceAccount" = announcer.account } }
      }],
    )
  })
}

output "name" { value = aws_sqs_queue.this.name }
output "arn" { value = aws_sqs_queue.this.arn }
output "url" { value = aws_sqs_queue.this.url }
output "dead_letter_name" { value = aws_sqs_queue.dead_letter.name }
output "dead_letter_arn" { value = aws_sqs_queue.dead_letter.arn }
output "dead_letter_url" { value = aws_sqs_queue.dead_letter.url }
output "redrive_policy" { value = aws_sqs_queue.this.redrive_policy }
output "redrive_allow_policy" { value = aws_sqs_queue_redrive_allow_policy.this.redrive_allow_policy }
output "dead_letter_retention_s" { value = aws_sqs_queue.dead_letter.message_retention_seconds }
output "policies" { value = [for policy in aws_sqs_queue_policy.tls_only : policy.policy] }
