# A private, versioned bucket whose objects may expire.

variable "name" { type = string }
variable "noncurrent_days" { type = number }
variable "may_be_destroyed_with_objects" { type = bool }

variable "superseded_days" {
  description = "Days until an object expires that is tagged starlift=superseded, from the day on which it was written; null: no object is."
  type        = number
  default     = null
}

variable "expire_days" {
  description = "Days until objects expire, by prefix. Objects with none of these prefixes are kept."
  type        = map(number)
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Only a few roles read and write it; where access must be logged, use CloudTrail's data events.
  #checkov:skip=CKV_AWS_144:The objects can be read again from the source; a copy in another region would only cost money.
  #checkov:skip=CKV_AWS_145:SSE-S3. A key of our own would cost a request per object and exclude no principal that the roles admit.
  #checkov:skip=CKV2_AWS_62:Messages are sent by the services; only files in the drop zone are announced, if there are any.
  bucket        = var.name
  force_destroy = var.may_be_destroyed_with_objects
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id
  rule { object_ownership = "BucketOwnerEnforced" }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration { status = "Enabled" }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    apply_server_side_encryption_by_default { sse_algorithm = "AES256" }
  }
}

resource "aws_s3_bucket_policy" "tls_only" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "DenyPlainHttp"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket     = aws_s3_bucket.this.id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    expiration { expired_object_delete_marker = true } # what remains of an object when its last version is gone
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
    noncurrent_version_expiration { noncurrent_days = var.noncurrent_days }
  }

  dynamic "rule" {
    for_each = var.expire_days
    content {
      id     = "expire-${trimsuffix(rule.key, "/")}"
      status = "Enabled"
      filter { prefix = rule.key }
      expiration { days = rule.value }
    }
  }

  dynamic "rule" {
    for_each = var.superseded_days[*]
    content {
      id     = "superseded"
      status = "Enabled"
      filter {
        tag {
          key   = "starlift"
          value = "superseded"
        }
      }
      expiration { days = rule.value }
    }
  }
}

output "name" { value = aws_s3_bucket.this.bucket }
output "arn" { value = aws_s3_bucket.this.arn }
output "expire_days" { value = { for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.filter[0].prefix => rule.expiration[0].days if startswith(rule.id, "expire-") } }
output "is_public" {
  value = !alltrue([
    aws_s3_bucket_public_access_block.this.block_public_acls,
    aws_s3_bucket_public_access_block.this.block_public_policy,
    aws_s3_bucket_public_access_block.this.ignore_public_acls,
    aws_s3_bucket_public_access_block.this.restrict_public_buckets,
  ])
}
output "policy" { value = aws_s3_bucket_policy.tls_only.policy }
