#!/usr/bin/env bash
# A search on a Slurm cluster: a Ray cluster of this job's own on the nodes of the job, and the search on the first one.
#
#   sbatch deploy/slurm.sh --name first --data /shared/xd.store --storage /shared/runs --shared-storage \
#     --gpus-per-trial 0.25 --cpus-per-trial 2
#
# Say it in the root of the repository, which every node must see, as well as --storage where that is no bucket. The
# options are those of tune/search.py; --name is needed, for with it the job goes on after it was preempted, requeued or
# ran into its time limit: Slurm starts it again, and it says --resume by itself. `scancel JOB` ends it for good; to go on
# nevertheless, submit the same line again.
#
# It was run with Slurm 22.05 on two nodes without GPUs (tests/cluster/test_slurm.py): to its end, requeued, and into its
# time limit. Not run: with GPUs, and where Slurm keeps jobs in cgroups.

# CHANGE what your cluster needs: partition, account, nodes, GPUs, time. A node's CPUs and GPUs are all used for trials,
# but for one CPU of the first node, which is the search's.
#SBATCH --job-name=macil-tune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --output=macil-tune-%j.log
#SBATCH --open-mode=append
# Put back into the queue when it is preempted; three minutes before the time limit it stops and asks for it itself.
#SBATCH --requeue
#SBATCH --signal=B:USR1@180

set -uo pipefail
root=${SLURM_SUBMIT_DIR:?say: sbatch deploy/slurm.sh ...}
# CHANGE: the environment with the packages, which every node must see.
export PATH="${MACIL_ENV:-$root/.venv}/bin:$PATH"

# Ends nothing but what it started: never `ray stop`, which would end every Ray process of the account on a shared node.
steps=() search='' why=''
end_all() {
  trap '' TERM USR1
  if [ ${#steps[@]} -gt 0 ]; then
    scancel --signal=TERM "$SLURM_JOB_ID" # its steps, that is the nodes, not this script
    for _ in $(seq 40); do
      kill -0 "${steps[@]}" 2> /dev/null || break
      sleep 0.5
    done
    kill -TERM "${steps[@]}" 2> /dev/null # srun then has them killed
    wait "${steps[@]}"
  fi 2> /dev/null
  rm -rf "$private"
}
stop() { # the search saves where it is, and ends; called by the traps
  why=$1
  if [ -n "$search" ]; then kill -TERM "$search" 2> /dev/null; else exit 143; fi
}

# Its option's value, as --OPTION VALUE or --OPTION=VALUE.
value_of() {
  local option=$1 last=''
  shift
  for word in "$@"; do
    [ "$last" = "$option" ] && { echo "$word"; return; }
    case $word in "$option="*) echo "${word#*=}"; return ;; esac
    last=$word
  done
}
name=$(value_of --name "$@")
storage=$(value_of --storage "$@")
[ -n "$name" ] || { echo "give the run a --name: with it the job can go on when it was requeued" >&2; exit 2; }

# The same secret on every node, in a folder that they share and nobody else can read.
private=$root/.macil-tune-$SLURM_JOB_ID
umask 077
mkdir -p "$private" && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$private/token" || exit
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token
trap end_all EXIT
trap 'stop preempted' TERM
trap 'stop time' USR1

# Apart from every other Ray on the nodes: a folder of this job's own, on a local disk and with a short name, and ports
# that no other job derives from its number.
export RAY_TMPDIR=${MACIL_LOCAL:-/tmp}/macil-$SLURM_JOB_ID
port=$((20000 + SLURM_JOB_ID % 3000 * 4))
# A silent node is given up after 13 s at most, as in cluster.yaml.
export RAY_health_check_initial_delay_ms=2000 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=4
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # it waits for services, of which there are none

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address_of() { # as Slurm reaches the node
  local address
  address=$(scontrol show node "$1" | grep -o 'NodeAddr=[^ ]*')
  getent ahostsv4 "${address#NodeAddr=}" | { read -r address _; echo "$address"; }
}
head=$(address_of "${nodes[0]}")
[ -n "$head" ] || { echo "no address of node ${nodes[0]}" >&2; exit 1; }

# One node: `ray start` until it is asked to end; then its processes, which are those that have a file of the folder open,
# as all of Ray's have their log, and the folder. Asked first, killed after 5 s: Slurm gives a job 30 s.
on_node='
  spare=$1; shift
  end() {
    trap "" TERM
    for tenth in $(seq 100); do
      left=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "$RAY_TMPDIR/*" 2> /dev/null | cut -d / -f 3 | sort -u)
      [ -n "$left" ] || break
      if [ "$tenth" -ge 50 ]; then kill -KILL $left; elif [ "$tenth" -eq 1 ]; then kill -TERM $left; fi
      sleep 0.1
    done 2> /dev/null
    rm -rf "$RAY_TMPDIR"
  }
  end # of a former life of this job
  mkdir -m 700 "$RAY_TMPDIR" || exit
  trap "end; exit" TERM
  ulimit -n "$(ulimit -Hn)"
  ray start "$@" --block --num-cpus=$((SLURM_CPUS_ON_NODE > spare ? SLURM_CPUS_ON_NODE - spare : 1)) \
    --object-store-memory=200000000 --min-worker-port=0 --max-worker-port=0 --disable-usage-stats > /dev/null &
  wait
  end'
start_node() { # node, CPUs that are not for trials, options of `ray start`
  local node=$1
  shift
  srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$SLURM_CPUS_ON_NODE" --overlap \
    bash -c "$on_node" node "$@" &
  steps+=($!)
}
client=()
if python -c 'import grpc' 2> /dev/null; then client=(--ray-client-server-port=$((port + 2))); fi
start_node "${nodes[0]}" 1 --head --node-ip-address="$head" --port=$port --include-dashboard=false \
  --dashboard-agent-listen-port=$((port + 1)) "${client[@]}"
for node in "${nodes[@]:1}"; do
  start_node "$node" 0 --address="$head:$port" --node-ip-address="$(address_of "$node")" \
    --dashboard-agent-listen-port=$((port + 1))
done

wait_for_nodes='
import os, socket, sys, time
address, wanted, head = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
deadline = time.monotonic() + 300
def left():
    try:
        os.kill(head, 0)
    except ProcessLookupError:
        sys.exit("Ray does not start on the first node")
    return time.monotonic() < deadline
while left():
    try:
        host, _, port = address.partition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        break
    except OSError:
        time.sleep(0.5)
import ray
ray.init(address=address, logging_level="ERROR", log_to_driver=False)
while (up := sum(node["Alive"] for node in ray.nodes())) < wanted and left():
    time.sleep(0.5)
print(f"{up} of {wanted} nodes are up", flush=True)'
python -c "$wait_for_nodes" "$head:$port" "${#nodes[@]}" "${steps[0]}" &
search=$!
wait $search || exit
[ -z "$why" ] || exit 143

# A run that is there is gone on with: as --resume, with the same options.
options=("$@")
if said=$(python "$root/tune/search.py" --status "$name" ${storage:+--storage "$storage"} 2> /dev/null) &&
  [[ $said != *": not begun;"* ]]; then
  options=()
  for word in "$@"; do
    case $word in
      --name) options+=(--resume) ;;
      --name=*) options+=("--resume=${word#*=}") ;;
      --overwrite) ;;
      *) options+=("$word") ;;
    esac
  done
fi
[ -z "$why" ] || exit 143
python "$root/tune/search.py" --address "$head:$port" "${options[@]}" &
search=$!
while true; do # a signal ends `wait` before the search ends
  wait "$search"
  code=$?
  kill -0 "$search" 2> /dev/null || break
done
search=''
if [ "$why" = time ] && [ "$code" -ne 0 ]; then
  echo "close to the time limit: back into the queue"
  end_all
  trap - EXIT
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
