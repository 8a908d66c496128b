# The cluster for all tasks: Fargate and Fargate Spot.

variable "name" { type = string }

resource "aws_ecs_cluster" "this" {
  name = var.name
  setting {
    name  = "containerInsights"
    value = "enabled" # provides RunningTaskCount, by which the scaling divides
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

output "name" { value = aws_ecs_cluster.this.name }
output "arn" { value = aws_ecs_cluster.this.arn }
