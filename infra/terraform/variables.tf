variable "environment" {
  description = "Names the buckets and secrets, and the environments on GitHub."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,9}$", var.environment))
    error_message = "An environment has a short name of lower-case letters and digits, such as dev or prod."
  }
}

variable "name" {
  description = "Of everything else. Two environments in one account and region need two; null: as infra/topology.json says."
  type        = string
  default     = null
}

variable "github_repository" {
  description = "Whose pipelines may deploy, as GitHub's tokens name it: OWNER@ID/NAME@ID, or OWNER/NAME if it is older than July 2026."
  type        = string
  validation {
    condition     = can(regex("^[\\w.-]+(@\\d+)?/[\\w.-]+(@\\d+)?$", var.github_repository))
    error_message = "A repository is OWNER@ID/NAME@ID or OWNER/NAME, and one only."
  }
}

variable "github_provider_arn" {
  description = "The account's identity provider for GitHub, of which there can be one only; null: make it."
  type        = string
  default     = null
}

variable "alarm_email" {
  description = "Who is told when something goes wrong."
  type        = string
}

variable "network" {
  description = "A network of yours, from which the databases can be reached, with its private subnets; null: make one."
  type = object({
    vpc_id          = string
    cidr            = string
    subnet_ids      = list(string)
    route_table_ids = list(string)
  })
  default = null
}

variable "new_network" {
  description = "What the network is like if it is made. Each zone costs an interface endpoint for each AWS service; RDS wants two."
  type        = object({ cidr = string, zones = list(string) })
  default     = { cidr = "10.64.0.0/20", zones = ["a", "b"] }
}

variable "has_internet" {
  description = "Whether the private subnets of your network lead to AWS by themselves (NAT, or endpoints that are there already)."
  type        = bool
  default     = false
}

variable "database_cidrs" {
  description = "Where the databases are, by secret; what is not named is in the network itself."
  type        = map(list(string))
  default     = {}
}

variable "database_ports" {
  description = "Where they listen, by secret."
  type        = map(number)
  default     = { source = 5432, warehouse = 5432 }
}

variable "has_images" {
  description = "Whether every program's repository holds an image. The first apply makes the repositories, and nothing that needs an image."
  type        = bool
  default     = false
}

variable "settings" {
  description = "More of what every program is told, such as STARLIFT_CONTRACT or STARLIFT_LOG_LEVEL."
  type        = map(string)
  default     = {}
}

variable "is_scheduled" {
  description = "Whether the schedules run."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  type    = number
  default = 90
}

variable "may_destroy_data" {
  description = "Whether `terraform destroy` may take objects, images and secrets along."
  type        = bool
  default     = false
}
