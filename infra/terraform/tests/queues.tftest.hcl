# Queues and buckets, judged by Terraform's core. The provider is a mock in every file here: nothing is made anywhere, with or
# without an account. `make infra-check` runs this.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

run "queues_and_buckets" {
  assert {
    condition     = alltrue([for queue in module.queue : jsondecode(queue.redrive_policy).deadLetterTargetArn == queue.dead_letter_arn])
    error_message = "A queue moves its messages to another queue's dead-letter queue."
  }
  assert {
    condition = alltrue([for queue in module.queue : jsondecode(queue.redrive_allow_policy) == {
      redrivePermission = "byQueue", sourceQueueArns = [queue.arn]
    }])
    error_message = "A dead-letter queue takes messages from another queue than its own."
  }
  assert {
    condition     = length(distinct([for queue in module.queue : queue.dead_letter_arn])) == length(module.queue)
    error_message = "Two queues share a dead-letter queue."
  }

  assert {
    condition     = alltrue([for queue in module.queue : queue.dead_letter_retention_s == 14 * 24 * 3600])
    error_message = "A dead letter keeps the age of its message: less than 14 days and it may be gone before somebody looks."
  }

  assert {
    condition = alltrue([
      for policy in concat(flatten([for queue in module.queue : queue.policies]), [for bucket in module.bucket : bucket.policy]) :
      alltrue([for statement in jsondecode(policy).Statement : statement.Effect == "Deny" && statement.Condition.Bool["aws:SecureTransport"] == "false"])
    ])
    error_message = "A queue or a bucket answers to plain HTTP, or its policy lets somebody in."
  }

  assert {
    condition     = alltrue([for bucket in module.bucket : !bucket.is_public])
    error_message = "A bucket could be made public."
  }
}
