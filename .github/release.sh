#!/usr/bin/env bash
# Replaces a program's image. Needs aws, docker, gh, jq and skopeo, and AWS credentials of the pipeline's role.
#   PROGRAM     ingestion, remodelling, loading or operator
#   ARCHIVE     the image as an OCI archive; empty for a rollback to an image that the repository holds
#   DIGEST      its digest
#   REPOSITORY  where AWS keeps its images          CLUSTER     where it runs
#   DEFER       `no` replaces ingestion in the middle of a run that takes hours
set -euo pipefail
: "${PROGRAM:?}" "${DIGEST:?}" "${REPOSITORY:?}" "${CLUSTER:?}" "${GITHUB_REPOSITORY:?}" "${GITHUB_SHA:?}"
FAMILY=${REPOSITORY##*/}
POLL_S=${POLL_S:-15}
PATIENCE=${PATIENCE:-160} # polls: 40 minutes
export WAITS=${WAITS:-12} # of ten minutes each: what a migration may take

say() { echo "release: $*" >&2; }
refuse() {
    say "$*"
    exit 1
}

go_forward() { # a build that was approved late must not replace a newer one
    local running=$FAMILY image tags order
    if [[ $PROGRAM != operator ]]; then running=$(service taskDefinition); fi
    image=$(aws ecs describe-task-definition --task-definition "$running" \
        --query 'taskDefinition.containerDefinitions[0].image' --output text)
    tags=$(aws ecr describe-images --repository-name "$FAMILY" --image-ids "imageDigest=${image##*@}" \
        --query 'imageDetails[0].imageTags' --output text || true)
    if ! [[ $tags =~ (^|[[:space:]])([0-9a-f]{40})- ]]; then return; fi # without a commit: a person's first image, or one that has been deleted
    order=$(gh api "repos/$GITHUB_REPOSITORY/compare/${BASH_REMATCH[2]}...$GITHUB_SHA" --jq .status)
    [[ $order == ahead || $order == identical ]] ||
        refuse "what runs was built of ${BASH_REMATCH[2]}, which $GITHUB_SHA does not contain; to go back see docs/deploy.md, Roll back"
}

log_in() {
    aws ecr get-login-password | docker login --username AWS --password-stdin "${REPOSITORY%%/*}" >&2
}

verify() { # only images signed by this repository's build of main may run, or enter the repository
    local image=oci://$REPOSITORY@$DIGEST
    if [[ -n ${ARCHIVE:-} ]]; then # what is signed is the manifest, which is in the archive as the blob of this digest
        image=$(mktemp)
        tar --extract --to-stdout --file "$ARCHIVE" "blobs/${DIGEST/://}" > "$image"
    fi
    gh attestation verify "$image" --repo "$GITHUB_REPOSITORY" \
        --signer-workflow "$GITHUB_REPOSITORY/.github/workflows/deploy.yml" --source-ref refs/heads/main >&2
}

push() { # byte for byte; a tag can't be moved, so each build of a commit has its own
    if aws ecr describe-images --repository-name "$FAMILY" --image-ids "imageDigest=$DIGEST" > /dev/null 2>&1; then
        say "$DIGEST is there already"
    else
        skopeo copy --preserve-digests "oci-archive:$ARCHIVE" "docker://$REPOSITORY:$GITHUB_SHA-${DIGEST:7:12}" >&2
        aws ecr describe-images --repository-name "$FAMILY" --image-ids "imageDigest=$DIGEST" > /dev/null
    fi
}

wait_until_idle() { # ECS stops a busy task after 20 minutes: a first load then goes on, but merges the rest, which takes longer
    local tasks busy
    for _ in $(seq "$PATIENCE"); do
        read -ra tasks <<< "$(aws ecs list-tasks --cluster "$CLUSTER" --service-name "$PROGRAM" --query 'taskArns[]' --output text)"
        if [[ ${tasks[0]:-None} == None ]]; then return; fi
        busy=$(aws ecs get-task-protection --cluster "$CLUSTER" --tasks "${tasks[@]}" \
            --query 'length(protectedTasks[?protectionEnabled])' --output text)
        if [[ $busy == 0 ]]; then return; fi
        sleep "$POLL_S"
    done
    refuse "deferred: $PROGRAM has been in a run for $((PATIENCE * POLL_S)) s, and a deployment would end it; nothing was replaced. Run this job again when \`starlift runs\` shows the run as complete; to end the run instead, set the environment's variable DEFER to no"
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
    local network
    network=$(service networkConfiguration json)
    "$(dirname "$0")/run-task.sh" "$1" "$network" python -m services.loading.migrate ||
        refuse "the warehouse can't be shaped for this build: nothing was replaced; the migration's log says why"
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

mark() { # what `terraform apply` takes for the program's image: never one that was rolled back, or only pushed
    skopeo copy --preserve-digests "docker://$REPOSITORY@$DIGEST" "docker://$REPOSITORY:deployed" >&2
}

if [[ -n ${ARCHIVE:-} ]]; then
    verify
    go_forward
    log_in
    push
else
    log_in
    verify
fi
if [[ $PROGRAM == ingestion && -n ${ARCHIVE:-} && ${DEFER:-} != no ]]; then wait_until_idle; fi
definition=$(register)
say "registered $definition"
if [[ $PROGRAM == loading && -n ${ARCHIVE:-} ]]; then migrate "$definition"; fi # the warehouse is not rolled back
if [[ $PROGRAM != operator ]]; then replace "$definition"; fi                  # the operator is started for one command at a time
mark
say "$PROGRAM is in place"
