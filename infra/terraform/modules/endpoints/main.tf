# Private access to the AWS services that tasks use, without the internet.

variable "name" { type = string }
variable "region" { type = string }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }
variable "route_table_ids" { type = list(string) }

variable "bucket_arns" {
  description = "The buckets that tasks use."
  type        = list(string)
}

variable "security_group_ids" {
  description = "The security groups of the tasks, by program."
  type        = map(string)
}

resource "aws_security_group" "this" {
  name        = "${var.name}-endpoints"
  description = "HTTPS from the tasks of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each                     = var.security_group_ids
  security_group_id            = aws_security_group.this.id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = each.value
}

resource "aws_vpc_endpoint" "interface" {
  for_each            = toset(["ecr.api", "ecr.dkr", "logs", "secretsmanager", "sqs"])
  vpc_id              = var.vpc_id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = var.subnet_ids
  security_group_ids  = [aws_security_group.this.id]
  private_dns_enabled = true
  tags                = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_endpoint" "s3" { # free
  vpc_id            = var.vpc_id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.route_table_ids
  tags              = { Name = "${var.name}-s3" }
  policy = jsonencode({ # rows can reach no other bucket, whatever a task's role allows
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "OurBuckets"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:ListBucket", "s3:ListBucketVersions"]
        Resource  = var.bucket_arns
      },
      {
        Sid       = "OurObjects"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:PutObjectTagging"]
        Resource  = [for arn in var.bucket_arns : "${arn}/*"]
      },
      {
        Sid       = "ImageLayers" # ECR's, which hands out signed URLs
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:GetObject"
        Resource  = "arn:aws:s3:::prod-${var.region}-starport-layer-bucket/*"
      },
    ]
  })
}

output "subnet_ids" { value = distinct(flatten([for endpoint in aws_vpc_endpoint.interface : endpoint.subnet_ids])) }
output "security_group_id" { value = aws_security_group.this.id }
output "s3_policy" { value = aws_vpc_endpoint.s3.policy }
output "s3_prefix_list_id" { value = aws_vpc_endpoint.s3.prefix_list_id }
