# How tasks reach AWS, the databases and APIs. Nothing reaches the tasks.

module "network" {
  source = "./modules/network"
  count  = var.network == null ? 1 : 0
  name   = local.name
  cidr   = var.new_network.cidr
  zones  = var.new_network.zones
  region = local.region
}

module "internet" { # only for an API that is not asked through a proxy: nothing else is outside
  source          = "./modules/internet"
  count           = var.network == null && length(local.apis) > 0 && local.api_proxy == null ? 1 : 0
  name            = local.name
  vpc_id          = module.network[0].vpc_id
  cidr            = cidrsubnet(var.new_network.cidr, 4, 15)
  zone            = "${local.region}${var.new_network.zones[0]}"
  route_table_ids = module.network[0].route_table_ids
}

module "endpoints" {
  source             = "./modules/endpoints"
  count              = local.has_endpoints ? 1 : 0
  name               = local.name
  region             = local.region
  vpc_id             = local.network.vpc_id
  subnet_ids         = local.network.subnet_ids
  route_table_ids    = local.network.route_table_ids
  bucket_arns        = concat([for bucket in module.bucket : bucket.arn], module.contract_bucket[*].arn)
  security_group_ids = { for name, program in module.program : name => program.security_group_id }
}

module "egress" {
  source            = "./modules/egress"
  for_each          = local.programs
  security_group_id = module.program[each.key].security_group_id
  destinations      = merge(local.aws_destinations, each.key == "ingestion" ? local.api_destinations : {}, { for name in local.database_names[each.key] : name => local.database_destinations[name] })
}

locals {
  has_endpoints = var.network == null || !var.has_internet
  network = {
    vpc_id          = one(concat(module.network[*].vpc_id, var.network[*].vpc_id))
    subnet_ids      = flatten(concat([for network in module.network : slice(network.subnet_ids, 0, coalesce(var.new_network.task_zones, length(var.new_network.zones)))], var.network[*].subnet_ids))
    route_table_ids = flatten(concat(module.network[*].route_table_ids, var.network[*].route_table_ids))
  }
  network_cidr = var.network == null ? var.new_network.cidr : var.network.cidr

  aws_destinations = merge(
    { for kind in local.has_endpoints ? ["AWS endpoints"] : [] : kind => { port = 443, security_group_id = module.endpoints[0].security_group_id } },
    { for kind in local.has_endpoints ? ["S3"] : [] : kind => { port = 443, prefix_list_id = module.endpoints[0].s3_prefix_list_id } },
    { for kind in local.has_endpoints ? [] : ["AWS"] : kind => { port = 443, cidr = "0.0.0.0/0" } },
  )

  # By port alone: the addresses of an API change. Ingestion refuses those of private networks itself.
  api_destinations = { for port in local.api_ports : "APIs at port ${port}" => { port = port, cidr = "0.0.0.0/0" } if local.has_endpoints || port != 443 }

  databases = merge([
    for secret in keys(local.database_ends) : {
      for cidr in lookup(var.database_cidrs, secret, [local.network_cidr]) :
      "${secret} at ${cidr}" => { secret = secret, port = lookup(var.database_ports, secret, 5432), cidr = cidr }
    }
  ]...)
  database_destinations = { for name, database in local.databases : name => { port = database.port, cidr = database.cidr } }
  database_names = {
    for name, program in local.programs : name => [for key, database in local.databases : key if contains(local.databases_of[name], database.secret)]
  }
}
