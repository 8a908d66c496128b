# How services scale, and how their containers are confined.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ecr_image" {
    defaults = { image_uri = "the deployed one" }
  }
}

run "services" {
  assert {
    condition = alltrue([
      for service in module.service : toset([for metric in service.scaling.metrics : metric.id]) == toset(["visible", "inflight", "running", "backlog_per_task"])
    ])
    error_message = "The scaling must know visible messages, messages in flight and running tasks."
  }
  assert {
    condition = alltrue(flatten([
      for service in module.service : [
        for metric in service.scaling.metrics :
        metric.expression == "(visible + inflight) / IF(FILL(running, 0) < 1, 1, FILL(running, 1))" && metric.return_data if metric.id == "backlog_per_task"
      ]
    ]))
    error_message = "Without the messages in hand a busy queue looks idle, and its workers are taken away; and nothing is divided by no task."
  }
  assert {
    condition = alltrue(flatten([
      for name, service in module.service : [
        for metric in service.scaling.metrics :
        one(metric.metric_stat[*].metric)[0].metric_name == "RunningTaskCount" && !metric.return_data &&
        { for dimension in one(metric.metric_stat[*].metric)[0].dimensions : dimension.name => dimension.value } == { ClusterName = module.cluster.name, ServiceName = name }
        if metric.id == "running"
      ]
    ]))
    error_message = "The backlog is divided by the tasks of another service, or of another cluster."
  }
  assert {
    condition = alltrue(flatten([
      for name, service in module.service : [
        for metric in service.scaling.metrics : [
          for dimension in one(metric.metric_stat[*].metric)[0].dimensions : dimension.value == module.queue[coalesce(one(local.shared_queues[name]), local.topology.services[name].consumes)].name
        ] if contains(["visible", "inflight"], metric.id)
      ]
    ]))
    error_message = "A service is scaled by another service's queue."
  }
  assert {
    condition     = alltrue([for name, service in module.service : service.scaling.min >= 1 && service.scaling.min == local.topology.services[name].min && service.scaling.max == local.topology.services[name].max])
    error_message = "At least one task must run: with none, nothing tells how many there should be."
  }

  assert {
    condition = alltrue([
      for program in module.program : alltrue([
        for container in jsondecode(program.container_definitions) :
        container.readonlyRootFilesystem && container.user == "10001:10001" && container.linuxParameters.capabilities.drop == ["ALL"] && container.stopTimeout == 120
      ])
    ])
    error_message = "A container runs as root, writes to its own system, keeps a capability, or is killed before it has drained."
  }
  assert {
    condition     = alltrue([for program in module.program : jsondecode(program.container_definitions)[0].image == "the deployed one"])
    error_message = "An apply would put an image of before in the place of what the pipeline pushed last."
  }
}
