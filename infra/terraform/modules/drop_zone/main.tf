# The drop zone: each new file below a data set's prefix is announced on the queue of its source.

variable "bucket_name" { type = string }
variable "bucket_arn" { type = string }

variable "queue_arns" {
  description = "By data set of files, the queue on which its files are announced."
  type        = map(string)
}

resource "aws_s3_bucket_notification" "this" {
  bucket = var.bucket_name
  dynamic "queue" {
    for_each = var.queue_arns
    content {
      id            = queue.key
      queue_arn     = queue.value
      events        = ["s3:ObjectCreated:*"]
      filter_prefix = "dropzone/${queue.key}/"
    }
  }
}

output "data_sets" {
  description = "By data set, where its files are put, and the IAM policy of those who put them: they may read nothing, not even what they have put."
  value = {
    for dataset in keys(var.queue_arns) : dataset => {
      place = "s3://${var.bucket_name}/dropzone/${dataset}/"
      policy = jsonencode({
        Version   = "2012-10-17"
        Statement = [{ Sid = "PutFiles", Effect = "Allow", Action = "s3:PutObject", Resource = "${var.bucket_arn}/dropzone/${dataset}/*" }]
      })
    }
  }
}
