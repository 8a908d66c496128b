# The secret for a database's URL, for the JSON that RDS writes, or for the credentials of an API. A person sets the value: it never
# passes through Terraform, so it is not in the state.

variable "name" { type = string }
variable "description" { type = string }
variable "may_be_destroyed_at_once" { type = bool }

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV_AWS_149:The account's own key of Secrets Manager; another account never reads this.
  #checkov:skip=CKV2_AWS_57:A database's password is rotated in the database; docs/deploy.md explains how to do it without an outage.
  name                    = var.name
  description             = var.description
  recovery_window_in_days = var.may_be_destroyed_at_once ? 0 : 30
}

output "name" { value = aws_secretsmanager_secret.this.name }
output "arn" { value = aws_secretsmanager_secret.this.arn }
