#!/usr/bin/env bash
# Runs a command as a task and ends with its exit code: run-task.sh DEFINITION NETWORK COMMAND [ARGUMENT ...]
# NETWORK is the JSON of a network configuration. Needs aws and jq; CLUSTER names the cluster, WAITS how often to wait ten minutes.
set -euo pipefail
definition=$1 network=$2
shift 2
task=$(aws ecs run-task --cluster "$CLUSTER" --task-definition "$definition" --launch-type FARGATE --network-configuration "$network" \
    --overrides "$(jq --null-input --compact-output '{containerOverrides: [{name: "main", command: $ARGS.positional}]}' --args -- "$@")" \
    --query 'tasks[0].taskArn' --output text)
if [[ $task != arn:* ]]; then
    echo "run-task: $definition could not be started" >&2
    exit 1
fi
for _ in $(seq "${WAITS:-12}"); do # each wait ends after ten minutes
    if aws ecs wait tasks-stopped --cluster "$CLUSTER" --tasks "$task"; then break; fi
done
code=$(aws ecs describe-tasks --cluster "$CLUSTER" --tasks "$task" --query 'tasks[0].containers[0].exitCode' --output text)
echo "run-task: $definition ended with exit code $code (None: it has not ended)" >&2
[[ $code =~ ^[0-9]+$ ]] || code=1
exit "$code"
