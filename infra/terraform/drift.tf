# What the nightly plan on GitHub may do here: read every configuration, and no data. It can't take the lock of the state.

resource "aws_iam_role" "plan" {
  name = "${local.name}-plan"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = local.github_provider_arn }
      Condition = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = "repo:${var.github_repository}:environment:${var.environment}-plan"
      } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "plan" {
  role       = aws_iam_role.plan.name
  policy_arn = "arn:aws:iam::aws:policy/ReadOnlyAccess" # of the whole account: what a plan reads changes with each provider
}

resource "aws_iam_role_policy" "plan" {
  name = "no-data"
  role = aws_iam_role.plan.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Sid = "Rows", Effect = "Deny", Action = ["s3:GetObject", "s3:GetObjectVersion"], Resource = [for bucket in module.bucket : "${bucket.arn}/*"] },
      { Sid = "Messages", Effect = "Deny", Action = "sqs:ReceiveMessage", Resource = flatten([for queue in module.queue : [queue.arn, queue.dead_letter_arn]]) },
      { Sid = "Logins", Effect = "Deny", Action = "secretsmanager:GetSecretValue", Resource = "arn:aws:secretsmanager:${local.region}:${local.account}:secret:*" },
    ]
  })
}

output "plan_role" { value = aws_iam_role.plan.arn }
