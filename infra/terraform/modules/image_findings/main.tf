# A mail when the scan of a pushed image finds vulnerabilities of severity HIGH or CRITICAL.

variable "name" { type = string }
variable "repository_names" { type = list(string) }
variable "topic_arn" { type = string }

resource "aws_cloudwatch_event_rule" "this" {
  name        = "${var.name}-image-findings"
  description = "The scan of an image of ${var.name} found a vulnerability of severity HIGH or CRITICAL."
  event_pattern = jsonencode({
    source        = ["aws.ecr"]
    "detail-type" = ["ECR Image Scan"]
    detail = {
      "repository-name" = var.repository_names
      # A severity without findings is not in the event.
      "$or" = [for severity in ["CRITICAL", "HIGH"] : { "finding-severity-counts" = { (severity) = [{ exists = true }] } }]
    }
  })
}

resource "aws_cloudwatch_event_target" "mail" { # without a role: the topic's policy admits EventBridge
  rule = aws_cloudwatch_event_rule.this.name
  arn  = var.topic_arn
  input_transformer {
    input_paths = {
      repository = "$.detail.repository-name"
      digest     = "$.detail.image-digest"
    }
    input_template = "\"<repository>@<digest> has vulnerabilities of severity HIGH or CRITICAL. See docs/deploy.md, When an alarm is raised.\""
  }
}

output "pattern" { value = aws_cloudwatch_event_rule.this.event_pattern }
