output "region" { value = local.region }
output "cluster" { value = module.cluster.name }
output "queue_urls" { value = { for name, queue in module.queue : name => queue.url } }
output "dead_letter_urls" { value = { for name, queue in module.queue : name => queue.dead_letter_url } }
output "buckets" { value = { for name, bucket in module.bucket : name => bucket.name } }
output "drop_zone" { value = merge(module.drop_zone[*].data_sets...) }
output "secrets" { value = { for key, secret in module.database_secret : key => secret.name } }
output "repositories" { value = { for name, program in module.program : name => program.repository_url } }
output "pipeline_roles" { value = { for name, pipeline in module.pipeline : name => pipeline.role_arn } }

output "network" {
  description = "The value of `aws ecs run-task --network-configuration`, by program; the databases must admit these security groups."
  value = {
    for name, program in module.program : name => {
      awsvpcConfiguration = { subnets = local.network.subnet_ids, securityGroups = [program.security_group_id], assignPublicIp = "DISABLED" }
    }
  }
}

output "subnets" {
  description = "Every subnet, for the databases: also those in which no task runs."
  value       = flatten(concat(module.network[*].subnet_ids, var.network[*].subnet_ids))
}

output "api_address" {
  description = "The address from which APIs are asked; null: no NAT gateway was made."
  value       = one(module.internet[*].address)
}

output "vpc_id" { value = local.network.vpc_id }
