#!/bin/sh
# Run the health check of a service, and end the service if it has failed for long, so that the engine starts it again:
# an engine only marks a container as unhealthy. /dev/shm belongs to one container, and is empty when it starts.
# Nothing is ended unless process 1 is the init of a container engine ("init: true" in the compose file).
# Usage: health.sh SECONDS COMMAND...
#   SECONDS: time without a successful check after which the service is asked to end; twice that ends it for good.
set -u
limit=$1
shift
last=/dev/shm/last-success
[ -e "$last" ] || touch "$last"
if timeout 15 "$@"; then
  touch "$last"
  exit 0
fi
case $(cat /proc/1/comm) in
  docker-init | tini | catatonit | podman-init) ;;
  *) exit 1 ;;
esac
age=$(($(date +%s) - $(date -r "$last" +%s)))
if [ "$age" -ge $((2 * limit)) ]; then
  echo "no successful check for $age s: killing the service" >&2
  # Everything except this shell and process 1, which ends with its child.
  kill -KILL -1
elif [ "$age" -ge "$limit" ]; then
  echo "no successful check for $age s: ending the service" >&2
  kill -TERM 1
fi
exit 1
