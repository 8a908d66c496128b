#!/usr/bin/env bash
# Replaces a program's image. Needs aws, docker, gh, jq and skopeo, and AWS credentials of the pipeline's role.
#   PROGRAM     ingestion, remodelling, loading or operator
#   ARCHIVE     the image as an OCI archive         DIGEST      its expected digest
#   REPOSITORY  where AWS keeps its images          CLUSTER     where it runs
set -euo pipefail
: "${PROGRAM:?}" "${ARCHIVE:?}" "${DIGEST:?}" "${REPOSITORY:?}" "${CLUSTER:?}" "${GITHUB_REPOSITORY:?}" "${GITHUB_SHA:?}"
FAMILY=${REPOSITORY##*/}
POLL_S=${POLL_S:-15}
PATIENCE=${PATIENCE:-160} # polls: 40 minutes

say() { echo "release: $*" >&2; }
refuse() {
    say "$*"
    exit 1
}

go_forward() { # a build that was approved late must not replace a newer one
    local running=$FAMILY image tag order
    if [[ $PROGRAM != operator ]]; then running=$(service taskDefinition); fi
    image=$(aws ecs describe-task-definition --task-definition "$running" \
        --query 'taskDefinition.containerDefinitions[0].image' --output text)
    tag=$(aws ecr describe-images --repository-name "$FAMILY" --image-ids "imageDigest=${image##*@}" \
        --query 'imageDetails[0].imageTags[0]' --output text || true)
    if ! [[ $tag =~ ^([0-9a-f]{40})- ]]; then return; fi # without a commit: a person's first image, or one that has been deleted
    order=$(gh api "repos/$GITHUB_REPOSITORY/compare/${BASH_REMATCH[1]}...$GITHUB_SHA" --jq .status)
    [[ $order == ahead || $order == identical ]] ||
        refuse "what runs was built of ${BASH_REMATCH[1]}, which $GITHUB_SHA does not contain; to go back see docs/deploy.md, Roll back"
}

push() { # byte for byte; a tag can't be moved, so each build of a commit has its own
    aws ecr get-login-password | docker login --username AWS --password-stdin "${REPOSITORY%%/*}" >&2
    if aws ecr describe-images --repository-name "$FAMILY" --image-ids "imageDigest=$DIGEST" > /dev/null 2>&1; then
        say "$DIGEST is there already"
    else
        skopeo copy --preserve-digests "oci-archive:$ARCHIVE" "docker://$REPOSITORY:$GITHUB_SHA-${DIGEST:7:12}" >&2
        aws ecr describe-images --repository-name "$FAMILY" --image-ids "imageDigest=$DIGEST" > /dev/null
    fi
}

verify() { # only images signed by this repository's build of main may run
    gh attestation verify "oci://$REPOSITORY@$DIGEST" --repo "$GITHUB_REPOSITORY" \
        --signer-workflow "$GITHUB_REPOSITORY/.github/workflows/deploy.yml" --source-ref refs/heads/main >&2
}

register() { # a copy of the newest revision, which may be Terraform's, with this image
    aws ecs describe-task-definition --task-definition "$FAMILY" --query taskDefinition --output json |
        jq --arg image "$REPOSITORY@$DIGEST" '.containerDefinitions[0].image = $image
            | del(.taskDefinitionArn, .revision, .status, .requiresAttributes, .compatibilities, .registeredAt, .registeredBy)' |
        aws ecs register-task-definition --cli-input-json file:///dev/stdin --query taskDefinition.taskDefinitionArn --output text
}

service() { # service QUERY
    aws ecs describe-services --cluster "$CLUSTER" --services "$PROGRAM" --query "services[0].$1" --output "${2:-text}"
}

migrate() { # migrate DEFINITION: the new build migrates the warehouse before its loader starts
    local network task code
    network=$(service networkConfiguration json)
    task=$(aws ecs run-task --cluster "$CLUSTER" --task-definition "$1" --launch-type FARGATE \
        --network-configuration "$network" \
        --overrides '{"containerOverrides": [{"name": "main", "command": ["python", "-m", "services.loading.migrate"]}]}' \
        --query 'tasks[0].taskArn' --output text)
    [[ $task == arn:* ]] || refuse "the migration could not be started"
    for _ in 1 2 3 4; do # each wait ends after ten minutes
        if aws ecs wait tasks-stopped --cluster "$CLUSTER" --tasks "$task"; then break; fi
    done
    code=$(aws ecs describe-tasks --cluster "$CLUSTER" --tasks "$task" --query 'tasks[0].containers[0].exitCode' --output text)
    [[ $code == 0 ]] || refuse "the warehouse can't be shaped for this build (exit code $code; None: not yet done): nothing was replaced; its log says why"
}

replace() { # replace DEFINITION: wait until ECS has finished the deployment or rolled it back
    local state
    aws ecs update-service --cluster "$CLUSTER" --service "$PROGRAM" --task-definition "$1" > /dev/null
    for _ in $(seq "$PATIENCE"); do
        state=$(service "deployments[?taskDefinition=='$1'] | [0].rolloutState")
        case $state in
            COMPLETED) return ;;
            IN_PROGRESS) sleep "$POLL_S" ;;
            *) refuse "ECS rolled back to $(service taskDefinition): tasks did not become healthy, or an alarm went off" ;;
        esac
    done
    refuse "the deployment is neither done nor rolled back after $((PATIENCE * POLL_S)) s; look at its events"
}

go_forward
push
verify
definition=$(register)
say "registered $definition"
if [[ $PROGRAM == loading ]]; then migrate "$definition"; fi
if [[ $PROGRAM != operator ]]; then replace "$definition"; fi # the operator is started for one command at a time
say "$PROGRAM is in place"
