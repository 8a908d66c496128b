variable "environment" {
  description = "The environment's short name; part of the names of buckets and secrets, and of the environments on GitHub."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,9}$", var.environment))
    error_message = "environment must be 2 to 10 lower-case letters and digits, such as dev or prod."
  }
}

variable "name" {
  description = "The prefix of all other names. Two environments in one account and region need different ones; null: the name in infra/topology.json."
  type        = string
  default     = null
}

variable "github_repository" {
  description = "The repository whose pipelines may deploy, as GitHub's tokens name it: OWNER@ID/NAME@ID, or OWNER/NAME if it is older than July 2026."
  type        = string
  validation {
    condition     = can(regex("^[\\w.-]+(@\\d+)?/[\\w.-]+(@\\d+)?$", var.github_repository))
    error_message = "github_repository must be one repository, written OWNER@ID/NAME@ID or OWNER/NAME."
  }
}

variable "github_provider_arn" {
  description = "The ARN of the account's identity provider for GitHub, of which there can be only one; null: create it."
  type        = string
  default     = null
}

variable "alarm_email" {
  description = "The address that receives the alarms."
  type        = string
}

variable "network" {
  description = "Your own network, from which the databases can be reached, with its private subnets; null: create one."
  type = object({
    vpc_id          = string
    cidr            = string
    subnet_ids      = list(string)
    route_table_ids = list(string)
  })
  default = null
}

variable "new_network" {
  description = "The network to create if `network` is null. Tasks and endpoints are in the first `task_zones` of its zones (null: in all): each zone costs an interface endpoint per AWS service, while RDS needs subnets in two."
  type        = object({ cidr = string, zones = list(string), task_zones = optional(number) })
  default     = { cidr = "10.64.0.0/20", zones = ["a", "b"] }
  validation {
    condition     = try(var.new_network.task_zones, null) == null || contains(range(1, length(var.new_network.zones) + 1), coalesce(var.new_network.task_zones, 1))
    error_message = "task_zones must be from 1 to the number of zones."
  }
}

variable "sizes" {
  description = "The size of a program's tasks, and the most tasks of a service, where they differ from infra/topology.json: `cpu` in 1/1024 of a core, `memory` in MiB."
  type        = map(object({ cpu = number, memory = number, max = optional(number) }))
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.sizes) : contains(["ingestion", "remodelling", "loading", "operator"], name)])
    error_message = "sizes has keys for ingestion, remodelling, loading and operator only."
  }
  validation {
    condition = alltrue([
      for size in values(var.sizes) : contains(lookup({
        "256"  = [512, 1024, 2048]
        "512"  = range(1024, 4097, 1024)
        "1024" = range(2048, 8193, 1024)
        "2048" = range(4096, 16385, 1024)
        "4096" = range(8192, 30721, 1024)
      }, tostring(size.cpu), []), size.memory)
    ])
    error_message = "Fargate has no such size: 256 of cpu go with 512, 1024 or 2048 of memory, 512 with 1024 to 4096, 1024 with 2048 to 8192, 2048 with 4096 to 16384, 4096 with 8192 to 30720, in steps of 1024."
  }
}

variable "run_every_minutes" {
  description = "How often databases are read; null: as often as infra/topology.json says. Files and APIs: `delivered` there."
  type        = number
  default     = null
  validation {
    condition     = contains(range(1, 61), coalesce(var.run_every_minutes, 1))
    error_message = "run_every_minutes must be a whole number from 1 to 60."
  }
}

variable "prove_every_minutes" {
  description = "How often the warehouse is proved equal; null: as often as infra/topology.json says."
  type        = number
  default     = null
  validation { # the alarm waits for four of them, and CloudWatch evaluates one day at most
    condition     = contains(range(5, 361), coalesce(var.prove_every_minutes, 5))
    error_message = "prove_every_minutes must be a whole number from 5 to 360."
  }
}

variable "has_spot" {
  description = "Whether three of four tasks beyond the first one of a service run on Spot, for less than a third of the price; false while Spot has no capacity."
  type        = bool
  default     = true
}

variable "has_internet" {
  description = "Whether the private subnets of your network already reach AWS (through NAT or existing endpoints)."
  type        = bool
  default     = false
}

variable "database_cidrs" {
  description = "The address ranges of the databases, by secret; a database that is not listed is in the network itself."
  type        = map(list(string))
  default     = {}
}

variable "database_ports" {
  description = "The ports of the databases, by secret; 5432 if not listed."
  type        = map(number)
  default     = {}
}

variable "managed_secrets" {
  description = "Secrets that already exist, such as those that RDS writes and rotates, in place of Starlift's own: by source, warehouse, prover/source or prover/warehouse. `url` says where the database is (without a login) if the secret holds only the login; `kms_key_arn` is the secret's key if it is not AWS's."
  type        = map(object({ arn = string, url = optional(string), kms_key_arn = optional(string) }))
  default     = {}
  validation {
    condition     = alltrue([for key in keys(var.managed_secrets) : can(regex("^(prover/)?(warehouse|source(-[a-z][a-z0-9_]*)?)$", key))])
    error_message = "managed_secrets has keys for source, warehouse, prover/source and prover/warehouse; source-NAME and prover/source-NAME are those of a further source."
  }
  validation {
    condition     = alltrue([for secret in values(var.managed_secrets) : can(regex("^postgres(ql)?://[^@]+$", coalesce(secret.url, "postgresql://host")))])
    error_message = "The url of a managed secret must be postgresql://host:port/database?sslmode=verify-full, without a login: everyone who may describe a task can read it."
  }
}

variable "has_images" {
  description = "Whether every program's repository contains an image. The first apply creates the repositories, and nothing that needs an image."
  type        = bool
  default     = false
}

variable "sources" {
  description = "The sources of a contract that your images contain, besides the main one, which STARLIFT_SOURCE_NAME in `settings` names; those of `contract` are found there. Each has queues, a schedule and secrets of its own."
  type        = list(string)
  default     = []
  validation { # the scaling's metric is a sum of two metrics a source, and CloudWatch takes ten in all
    condition     = length(var.sources) <= 3 && alltrue([for source in var.sources : can(regex("^[a-z][a-z0-9_]*$", source))])
    error_message = "sources must be at most three names of lower-case letters, digits and underscores."
  }
}

variable "contract" {
  description = "The file of your own contract, relative to the directory in which Terraform runs; null: the contract that the images ship."
  type        = string
  default     = null
  validation {
    condition     = var.contract == null || !contains(keys(var.settings), "STARLIFT_CONTRACT")
    error_message = "contract and settings both name a contract; remove STARLIFT_CONTRACT from settings."
  }
  validation { # the scaling's metric is a sum of two metrics a source, and CloudWatch takes ten in all
    condition     = try(length(yamldecode(file(var.contract)).sources) <= 4, true)
    error_message = "A deployment has at most four sources, and the contract names more."
  }
}

variable "settings" {
  description = "Additional environment variables of every program, such as STARLIFT_SOURCE_NAME or STARLIFT_LOG_LEVEL."
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
  description = "Whether `terraform destroy` may also delete objects, images and secrets."
  type        = bool
  default     = false
}
