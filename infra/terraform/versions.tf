terraform {
  required_version = ">= 1.11" # first version that can lock the state in S3 alone

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.62"
    }
  }

  backend "s3" { # bucket, key and region: -backend-config, see docs/deploy.md
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region = local.topology.region

  default_tags {
    tags = {
      project     = local.name
      environment = var.environment
      managed-by  = "terraform"
    }
  }
}
