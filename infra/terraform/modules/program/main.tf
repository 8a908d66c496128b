# One program of Starlift as Fargate runs it: image repository, log, roles, firewall, task definition.

variable "name" { type = string }
variable "cluster" { type = string }
variable "region" { type = string }
variable "account" { type = string }
variable "vpc_id" { type = string }
variable "cpu" { type = number }
variable "memory" { type = number }
variable "stop_timeout_s" { type = number }
variable "log_retention_days" { type = number }
variable "may_be_destroyed_with_images" { type = bool }

variable "has_image" {
  description = "Whether the repository contains an image; false for the first apply."
  type        = bool
}

variable "environment" {
  description = "The program's environment variables. No secrets: everyone who may describe the task definition can read them."
  type        = map(string)
}

variable "statements" {
  description = "The permissions of the program: the statements of an IAM policy."
  type        = any
}

variable "is_service" {
  description = "Whether the program runs continuously and has a health check; false for a command that ends."
  type        = bool
}

locals {
  image = var.has_image ? one(data.aws_ecr_image.deployed[*].image_uri) : "${aws_ecr_repository.this.repository_url}:none"
  trust_of_ecs = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account }
        ArnLike      = { "aws:SourceArn" = "arn:aws:ecs:${var.region}:${var.account}:*" }
      }
    }]
  })
  health_check = { # the program has no port: its loop writes the file in every iteration
    command     = ["CMD", "python", "-m", "shared.health", "/tmp/alive", "60"]
    interval    = 15
    timeout     = 5
    retries     = 3
    startPeriod = 30
  }
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_51:Every tag is immutable but "deployed", which no task definition names.
  #checkov:skip=CKV_AWS_136:Encrypted with AWS's key; the code in an image is no secret.
  name                 = var.name
  image_tag_mutability = "IMMUTABLE_WITH_EXCLUSION"
  force_delete         = var.may_be_destroyed_with_images
  image_tag_mutability_exclusion_filter { # the pipeline moves this tag when a deployment has succeeded
    filter      = "deployed"
    filter_type = "WILDCARD"
  }
  image_scanning_configuration { scan_on_push = true }
}

# A change to another part of the container keeps the image of the last successful deployment. The newest image could be one
# that was rolled back, or whose migration was refused.
data "aws_ecr_image" "deployed" {
  count           = var.has_image ? 1 : 0
  repository_name = aws_ecr_repository.this.id # known once the repository exists
  image_tag       = "deployed"
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name
  policy = jsonencode({ rules = [
    {
      rulePriority = 1
      description  = "keep the deployed image, however many came after it"
      selection    = { tagStatus = "tagged", tagPrefixList = ["deployed"], countType = "imageCountMoreThan", countNumber = 1 }
      action       = { type = "expire" }
    },
    {
      rulePriority = 2
      description  = "keep the last 30 images for rollbacks"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 30 }
      action       = { type = "expire" }
    },
  ] })
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:Events carry no row and no secret (shared/logs.py), so a key of our own would protect nothing.
  #checkov:skip=CKV_AWS_338:The retention of logs is set per environment; the logs are not evidence.
  name              = "/${var.cluster}/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_iam_role" "execution" { # for ECS itself, before the code runs: pull and log
  name               = "${var.name}-execution"
  assume_role_policy = local.trust_of_ecs
}

resource "aws_iam_role_policy" "execution" {
  name = "start"
  role = aws_iam_role.execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Sid = "LogIn", Effect = "Allow", Action = "ecr:GetAuthorizationToken", Resource = "*" }, # does not support resources
      {
        Sid      = "Pull"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = aws_ecr_repository.this.arn
      },
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.this.arn}:log-stream:*"
      },
    ]
  })
}

resource "aws_iam_role" "task" { # for the code
  name               = "${var.name}-task"
  assume_role_policy = local.trust_of_ecs
}

resource "aws_iam_role_policy" "task" {
  name   = "work"
  role   = aws_iam_role.task.id
  policy = jsonencode({ Version = "2012-10-17", Statement = var.statements })
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5:The service or the caller of run-task attaches it; each task gets its own network interface.
  name        = var.name
  description = "Tasks of ${var.name}: no inbound traffic"
  vpc_id      = var.vpc_id
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  skip_destroy             = true # a rollback needs the previous revision
  track_latest             = true # accept the pipeline's revision as long as its content is the same

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "ARM64"
  }

  volume { name = "tmp" } # the only writable directory

  container_definitions = jsonencode([merge(
    {
      name                   = "main"
      image                  = local.image
      essential              = true
      readonlyRootFilesystem = true
      user                   = "10001:10001"
      stopTimeout            = var.stop_timeout_s
      linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
      mountPoints            = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
      environment            = [for name, value in var.environment : { name = name, value = value }]
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.this.name
          awslogs-region        = var.region
          awslogs-stream-prefix = "task"
          mode                  = "non-blocking" # a log that can't be written must not stop the work
          max-buffer-size       = "25m"
        }
      }
    },
    var.is_service ? { healthCheck = local.health_check } : {},
  )])
}

output "repository_arn" { value = aws_ecr_repository.this.arn }
output "repository_url" { value = aws_ecr_repository.this.repository_url }
output "log_group_name" { value = aws_cloudwatch_log_group.this.name }
output "execution_role_arn" { value = aws_iam_role.execution.arn }
output "trust" { value = local.trust_of_ecs }
output "role_arns" { value = [aws_iam_role.task.arn, aws_iam_role.execution.arn] }
output "security_group_id" { value = aws_security_group.this.id }
output "task_definition_arn" { value = aws_ecs_task_definition.this.arn }
output "size" { value = [aws_ecs_task_definition.this.cpu, aws_ecs_task_definition.this.memory] }
output "family" { value = aws_ecs_task_definition.this.family }
output "container_definitions" { value = aws_ecs_task_definition.this.container_definitions }
output "execution_policy" { value = aws_iam_role_policy.execution.policy }
output "task_policy" {
  value      = aws_iam_role_policy.task.policy
  depends_on = [aws_iam_role_policy.execution] # waiting for the policies waits for both
}
