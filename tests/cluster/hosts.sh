#!/usr/bin/env bash
# Throw-away hosts on this machine, for tests that need several: LAB=FOLDER tests/cluster/hosts.sh FUNCTION ARGUMENT ...
# Needs root, iproute2, tini and util-linux (unshare, nsenter). tests/cluster/lab.py drives it from Python.
#
# A host is a set of net, pid, mount, uts and ipc namespaces with tini as its first process; it has its own /dev/shm,
# its own /tmp/ray and its own home, and shares every other file with this machine. Ending its first process takes the
# power from it. A host named "switch" holds the bridge that joins the others, so that nothing outside can see them or be
# seen; `ray stop` inside a host finds the processes of that host alone.
#
#   host_up NAME       switch a host on          host_kill NAME     cut its power
#   net_up NAME ...    plug hosts in             in_host NAME CMD   run a command there
#   link_cut NAME      pull the cable            link_mend NAME     plug it in again
#   lab_down           the power of all of them  lab_follow PID     lab_down when that process has ended
#
# LAB      folder for what the hosts keep; must be set
# SUBNET   first three numbers of their addresses; the switch has .1, hosts .11, .12, ... in the order they are plugged in

: "${LAB:?set LAB to a folder of its own for this lab}"
SUBNET=${SUBNET:-10.200.0}
mkdir -p "$LAB/running" "$LAB/hosts"

host_up() {
  local name=$1 root=$LAB/hosts/$1 parent child
  mkdir -p "$root/home" "$root/ray" /tmp/ray
  # The first process dies with unshare, and the rest of the host with it.
  setsid unshare --net --mount --uts --ipc --pid --fork --kill-child --mount-proc bash -ec '
    hostname "$1"
    mount -t tmpfs -o size=1g tmpfs /dev/shm
    mount --bind "$2/ray" /tmp/ray
    ip link set lo up
    exec tini -- sleep infinity' bash "$name" "$root" </dev/null >"$root/boot.log" 2>&1 &
  parent=$!
  for _ in $(seq 100); do
    child=$(cat "/proc/$parent/task/$parent/children" 2>/dev/null)
    child=${child%% *}
    if [ -n "$child" ] && [ "$(cat "/proc/$child/comm" 2>/dev/null)" = tini ]; then
      echo "$child" >"$LAB/running/$name"
      return
    fi
    sleep 0.1
  done
  echo "host $name does not come up: $(cat "$root/boot.log")" >&2
  return 1
}

first_process() { cat "$LAB/running/$1"; }

in_host() { # begins in /, so paths should be absolute
  local name=$1 first
  shift
  first=$(first_process "$name") || return
  exec nsenter --target "$first" --net --mount --uts --ipc --pid -- env HOME="$LAB/hosts/$name/home" "$@"
}

net_up() {
  local name
  if [ ! -e "$LAB/running/switch" ]; then
    host_up switch || return
    (in_host switch ip link add bridge type bridge)
    (in_host switch ip addr add "$SUBNET.1/24" dev bridge)
    (in_host switch ip link set bridge up)
  fi
  for name in "$@"; do
    (in_host switch ip link del "to-$name" 2>/dev/null) # of a former life
    nsenter --target "$(first_process switch)" --net -- \
      ip link add "to-$name" type veth peer name eth0 netns "$(first_process "$name")" || return
    (in_host switch ip link set "to-$name" master bridge up)
    (in_host "$name" ip addr add "$(address_of "$name")/24" dev eth0)
    (in_host "$name" ip link set eth0 up)
    (in_host "$name" ip route add default via "$SUBNET.1") || return
  done
}

address_of() { # a host keeps its address when it is switched on again
  local file=$LAB/hosts/$1/address
  [ -e "$file" ] || echo "$SUBNET.$((11 + $(cat "$LAB"/hosts/*/address 2>/dev/null | wc -l)))" >"$file"
  cat "$file"
}

link_cut() { in_host switch ip link set "to-$1" down; }

link_mend() { in_host switch ip link set "to-$1" up; }

host_kill() {
  local first
  first=$(first_process "$1" 2>/dev/null) || return 0
  rm -f "$LAB/running/$1"
  # Only if the number is still that of a host's first process.
  [ "$(cat "/proc/$first/comm" 2>/dev/null)" = tini ] && kill -9 "$first"
  while [ -e "/proc/$first" ]; do sleep 0.02; done
}

lab_down() {
  local file
  for file in "$LAB"/running/*; do
    [ -e "$file" ] && host_kill "$(basename "$file")"
  done
  return 0
}

lab_follow() {
  setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" lab_down' bash "$1" "$(realpath "$0")" \
    </dev/null >/dev/null 2>&1 &
}

"$@"
