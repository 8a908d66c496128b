# What a pipeline on GitHub may do for one program: push its image, and replace the previous one. Nothing else.

variable "name" { type = string }
variable "region" { type = string }
variable "account" { type = string }
variable "github_provider_arn" { type = string }
variable "repository_arn" { type = string }
variable "passed_role_arns" { type = list(string) }

variable "github_subject" {
  description = "The jobs that may assume the role: repo:OWNER@ID/NAME@ID:environment:ENVIRONMENT-PROGRAM"
  type        = string
}

variable "service_arn" {
  description = "The service to deploy; null for a program that is not a service."
  type        = string
}

variable "runs_tasks" {
  description = "Whether to run tasks of the program: the loader's migration, the operator's smoke test."
  type        = bool
}

variable "cluster_arn" { type = string }

locals {
  definitions = "arn:aws:ecs:${var.region}:${var.account}:task-definition/${var.name}:*"
  tasks       = replace("${var.cluster_arn}/*", ":cluster/", ":task/")
}

resource "aws_iam_role" "this" {
  name                 = "${var.name}-pipeline"
  max_session_duration = 12000 # as long as the job may take: .github/workflows/release.yml
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = var.github_provider_arn }
      Condition = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = var.github_subject
      } }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  name = "deploy"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        { Sid = "LogIn", Effect = "Allow", Action = "ecr:GetAuthorizationToken", Resource = "*" },     # does not support resources
        { Sid = "Describe", Effect = "Allow", Action = "ecs:DescribeTaskDefinition", Resource = "*" }, # likewise
        {
          Sid      = "Push"
          Effect   = "Allow"
          Resource = var.repository_arn
          Action = [
            "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
            "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
          ]
        },
        { Sid = "Register", Effect = "Allow", Action = "ecs:RegisterTaskDefinition", Resource = local.definitions },
        {
          Sid       = "Pass"
          Effect    = "Allow"
          Action    = "iam:PassRole"
          Resource  = var.passed_role_arns
          Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
        },
      ],
      [for service in compact([var.service_arn]) : {
        Sid      = "Deploy"
        Effect   = "Allow"
        Action   = ["ecs:DescribeServices", "ecs:UpdateService"]
        Resource = service
      }],
      [for service in compact([var.service_arn]) : { # whether a run would be ended; AWS restricts the list by its condition only
        Sid       = "ListTasks"
        Effect    = "Allow"
        Action    = "ecs:ListTasks"
        Resource  = "*"
        Condition = { ArnEquals = { "ecs:cluster" = var.cluster_arn } }
      }],
      [for service in compact([var.service_arn]) : { Sid = "SeeRuns", Effect = "Allow", Action = "ecs:GetTaskProtection", Resource = local.tasks }],
      [for task in var.runs_tasks ? [local.tasks] : [] : { Sid = "Watch", Effect = "Allow", Action = "ecs:DescribeTasks", Resource = task }],
      [for definition in var.runs_tasks ? [local.definitions] : [] : {
        Sid       = "Run"
        Effect    = "Allow"
        Action    = "ecs:RunTask"
        Resource  = definition
        Condition = { ArnEquals = { "ecs:cluster" = var.cluster_arn } }
      }],
    )
  })
}

output "role_arn" { value = aws_iam_role.this.arn }
output "policy" { value = aws_iam_role_policy.this.policy }
output "trust" { value = aws_iam_role.this.assume_role_policy }
