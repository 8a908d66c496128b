# Where a database's URL is kept. A person puts the value there: it never passes through Terraform, so it is in no state.

variable "name" { type = string }
variable "may_be_destroyed_at_once" { type = bool }

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV_AWS_149:The account's own key of Secrets Manager; another account never reads this.
  #checkov:skip=CKV2_AWS_57:A database's password is changed where the database is; docs/deploy.md says how, without a gap.
  name                    = var.name
  description             = "postgresql://user:password@host:5432/database?sslmode=require"
  recovery_window_in_days = var.may_be_destroyed_at_once ? 0 : 30
}

output "name" { value = aws_secretsmanager_secret.this.name }
output "arn" { value = aws_secretsmanager_secret.this.arn }
