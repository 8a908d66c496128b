# A program that runs continuously, with as many tasks as its queue's backlog requires.

variable "name" { type = string }
variable "cluster_name" { type = string }
variable "cluster_arn" { type = string }
variable "task_definition_arn" { type = string }
variable "subnet_ids" { type = list(string) }
variable "security_group_id" { type = string }
variable "queue_names" { type = list(string) }
variable "min" { type = number }
variable "max" { type = number }
variable "backlog_per_task" { type = number }

variable "has_spot" { type = bool }
variable "topic_arn" { type = string }

variable "rollback_alarm_names" {
  description = "The alarms that roll back a deployment if one of them is raised."
  type        = list(string)
}

locals {
  # Messages in flight count: otherwise a queue that is being worked on looks idle, and scaling in stops its workers.
  backlog = merge([
    for place, queue in var.queue_names : {
      for id, metric in { visible = "ApproximateNumberOfMessagesVisible", inflight = "ApproximateNumberOfMessagesNotVisible" } :
      (place == 0 ? id : "${id}_${place}") => { metric = metric, queue = queue }
    }
  ]...)
}

resource "aws_ecs_service" "this" {
  name                               = var.name
  cluster                            = var.cluster_arn
  task_definition                    = var.task_definition_arn
  desired_count                      = var.min
  deployment_minimum_healthy_percent = 100 # start the new task before stopping the old one
  deployment_maximum_percent         = 200
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"

  # One task that Spot can't reclaim, and one of four beyond it: ECS starts no other task in place of one for which Spot has no
  # capacity, but the scaling keeps adding tasks while the backlog per running task is too large.
  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = 1
    weight            = 1
  }
  dynamic "capacity_provider_strategy" {
    for_each = var.has_spot ? ["FARGATE_SPOT"] : []
    content {
      capacity_provider = capacity_provider_strategy.value
      weight            = 3
    }
  }
  force_new_deployment = true # without it, another strategy would replace the service; an apply without changes deploys nothing

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  alarms {
    alarm_names = var.rollback_alarm_names
    enable      = true
    rollback    = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_id]
    assign_public_ip = false
  }

  lifecycle {
    ignore_changes = [desired_count, task_definition] # set by autoscaling and by the pipeline
  }
}

resource "aws_appautoscaling_target" "this" {
  service_namespace  = "ecs"
  resource_id        = "service/${var.cluster_name}/${aws_ecs_service.this.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.min
  max_capacity       = var.max
}

# A busy task is protected (shared/consumer/task_protection.py): scaling in stops an idle one, or waits.
resource "aws_appautoscaling_policy" "backlog" {
  name               = "backlog-per-task"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = var.backlog_per_task
    scale_out_cooldown = 60
    scale_in_cooldown  = 300

    customized_metric_specification {
      dynamic "metrics" {
        for_each = local.backlog
        content {
          id          = metrics.key
          return_data = false
          metric_stat {
            stat = "Maximum"
            metric {
              namespace   = "AWS/SQS"
              metric_name = metrics.value.metric
              dimensions {
                name  = "QueueName"
                value = metrics.value.queue
              }
            }
          }
        }
      }
      metrics {
        id          = "running"
        return_data = false
        metric_stat {
          stat = "Average"
          metric {
            namespace   = "ECS/ContainerInsights"
            metric_name = "RunningTaskCount"
            dimensions {
              name  = "ClusterName"
              value = var.cluster_name
            }
            dimensions {
              name  = "ServiceName"
              value = aws_ecs_service.this.name
            }
          }
        }
      }
      metrics {
        id          = "backlog_per_task"
        label       = "Messages a running task"
        expression  = "(${join(" + ", reverse(keys(local.backlog)))}) / IF(FILL(running, 0) < 1, 1, FILL(running, 1))"
        return_data = true
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "unplaced" {
  alarm_name          = "${var.cluster_name}-${var.name}-unplaced"
  alarm_description   = "For 15 minutes fewer tasks of ${var.name} have run than desired: they don't start, or Spot has no capacity. See docs/deploy.md."
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching" # a service that was scaled to no task publishes no metrics
  alarm_actions       = [var.topic_arn]
  ok_actions          = [var.topic_arn]

  metric_query {
    id          = "unplaced"
    label       = "Tasks that should run and do not"
    expression  = "desired - running"
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { desired = "DesiredTaskCount", running = "RunningTaskCount" }
    content {
      id = metric_query.key
      metric {
        namespace   = "ECS/ContainerInsights"
        metric_name = metric_query.value
        dimensions  = { ClusterName = var.cluster_name, ServiceName = aws_ecs_service.this.name }
        period      = 300
        stat        = "Maximum"
      }
    }
  }
}

output "arn" { value = aws_ecs_service.this.id }
output "capacity" {
  description = "By capacity provider, how many tasks it has before all others, and its weight beyond them."
  value       = { for strategy in aws_ecs_service.this.capacity_provider_strategy : strategy.capacity_provider => [coalesce(strategy.base, 0), strategy.weight] }
}
output "scaling" {
  value = {
    min     = aws_appautoscaling_target.this.min_capacity
    max     = aws_appautoscaling_target.this.max_capacity
    target  = aws_appautoscaling_policy.backlog.target_tracking_scaling_policy_configuration[0].target_value
    metrics = aws_appautoscaling_policy.backlog.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics
  }
}
