# Alarms for dead letters, and for messages that wait too long.

variable "dead_letter_name" { type = string }
variable "topic_arn" { type = string }

variable "queue_name" {
  description = "The queue whose oldest message is watched; null for a dead-letter queue that belongs to no queue of ours."
  type        = string
  default     = null
}

variable "oldest_message_s" {
  type    = number
  default = null
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${var.dead_letter_name}-not-empty"
  alarm_description   = "Dead letters: `starlift dlq list` prints why they failed. See docs/deploy.md."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = var.dead_letter_name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching" # a queue that was idle for six hours publishes no metrics
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "oldest_message" {
  count               = var.queue_name == null ? 0 : 1
  alarm_name          = "${var.queue_name}-oldest-message"
  alarm_description   = "A message has waited for more than ${var.oldest_message_s} s: too few tasks, or a dependency is down."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = var.queue_name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.oldest_message_s
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]
}
