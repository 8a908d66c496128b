# The logins of databases and APIs. Tasks read them at run time, so a rotated password needs no deployment, and no value passes through
# Terraform or a task definition.

module "database_secret" {
  source                   = "./modules/database_secret"
  for_each                 = { for key, path in local.secret_paths : key => path if !contains(keys(var.managed_secrets), key) }
  name                     = "${local.installation}/${each.value}"
  description              = startswith(each.key, "api/") ? "JSON, such as {\"token\": \"...\"}: see docs/files-and-apis.md" : "postgresql://user:password@host:5432/database?sslmode=verify-full"
  may_be_destroyed_at_once = var.may_destroy_data
}

locals {
  installation = "${local.name}/${var.environment}"

  # By database, the end of its variables' names.
  database_ends = merge({ warehouse = "" }, { for source in values(local.sources) : "source${source.end}" => source.variable if source.kind == "database" })
  databases_of = {
    for name, program in merge(local.programs, { proof = local.topology.proof }) :
    name => [for database in keys(local.database_ends) : database if contains(program.secrets, split("-", database)[0])]
  }

  # The services log in to read or to load; the operator, and the proofs that are scheduled, as a role that may only SELECT.
  secret_paths = merge(
    { warehouse = "warehouse" },
    { for name, source in local.sources : "source${source.end}" => "sources/${name}" if source.kind == "database" },
    { for name in local.api_secrets : "api/${name}" => "sources/${name}" },
    { for database in keys(local.database_ends) : "prover/${database}" => "prover/${database}" },
  )
  sources_arn = "arn:aws:secretsmanager:${local.region}:${local.account}:secret:${local.installation}/sources/*"

  secrets = {
    for key in keys(local.secret_paths) : key => {
      id          = try(var.managed_secrets[key].arn, module.database_secret[key].name)
      url         = try(var.managed_secrets[key].url, null)
      kms_key_arn = try(var.managed_secrets[key].kms_key_arn, null)
      arns = concat(
        [for managed, secret in var.managed_secrets : secret.arn if managed == key],
        startswith(key, "source") ? [local.sources_arn] : [for ours, secret in module.database_secret : secret.arn if ours == key],
      )
    }
  }
  logins = {
    for name, databases in local.databases_of : name => {
      for database in databases : database => local.secrets[contains(keys(local.topology.services), name) ? database : "prover/${database}"]
    }
  }
}
