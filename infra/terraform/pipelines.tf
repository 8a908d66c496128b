# What the pipelines on GitHub may do here: one role for each program, which jobs of one environment may assume.

resource "aws_iam_openid_connect_provider" "github" {
  count          = var.github_provider_arn == null ? 1 : 0
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

locals {
  github_provider_arn = coalesce(var.github_provider_arn, one(aws_iam_openid_connect_provider.github[*].arn))
}

module "pipeline" {
  source              = "./modules/pipeline"
  for_each            = local.programs
  name                = "${local.name}-${each.key}"
  region              = local.region
  account             = local.account
  github_provider_arn = local.github_provider_arn
  github_subject      = "repo:${var.github_repository}:environment:${var.environment}-${each.key}"
  repository_arn      = module.program[each.key].repository_arn
  passed_role_arns    = module.program[each.key].role_arns
  cluster_arn         = module.cluster.arn
  service_arn         = each.key == "operator" ? null : "arn:aws:ecs:${local.region}:${local.account}:service/${local.name}/${each.key}"
  runs_tasks          = contains(each.value.secrets, "warehouse")
}
