# What is tried in the machine. Each line that it prints at the end of a check begins with "holds: " or "does not hold: ".
failed=0

# is WHAT WANTED COMMAND: what the command prints has a line that is WANTED.
is() {
  said=$(eval "$3" 2>&1) || true
  if printf '%s\n' "$said" | grep -Fxq -- "$2"; then
    echo "holds: $1"
  else
    echo "does not hold: $1: no line \"$2\" in:"
    printf '%s\n' "$said"
    failed=1
  fi
}

# daemon OPTION...: starts it and waits until it answers.
daemon() {
  rswarm daemon "$@" >/tmp/daemon.log 2>&1 &
  pid=$!
  tries=0
  until rswarm version >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 $pid 2>/dev/null; then
      cat /tmp/daemon.log
      echo "does not hold: the daemon answers"
      exit 1
    fi
    sleep 0.2
  done
  tar -C /image -c . | rswarm image import - busybox >/dev/null
}

gone() {
  kill $pid
  wait $pid || true
}

mkdir -p /image/bin /image/tmp
cp /bin/busybox /image/bin/
for name in sh cat echo id ls mkdir sleep; do ln -s busybox /image/bin/$name; done
cat >/image/Dockerfile <<'D'
FROM busybox
RUN echo one > /one
RUN echo two > /two
COPY --from=busybox /bin/busybox /copied
RUN cat /one /two && ls -l /copied
D

uname -r
daemon
is "nothing that the daemon needs is missing" "bad: 0" "rswarm doctor | sed -n 's/^\([0-9]*\) bad, .*/bad: \1/p'"
is "limits reach cgroup v2" "33554432 50000 100000 50" \
  "rswarm run --rm --memory 32m --cpus 0.5 --pids-limit 50 busybox \
     sh -c 'cd /sys/fs/cgroup; echo \$(cat memory.max cpu.max pids.max)'"
is "who takes more memory than he has is ended" "137 true" \
  "rswarm run --name greedy --memory 16m busybox sh -c 'a=x; while :; do a=\$a\$a; done' >/dev/null 2>&1
   rswarm inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' greedy"
is "a paused container is frozen" "frozen 1" \
  "id=\$(rswarm run -d busybox sh -c 'while :; do :; done'); rswarm pause \$id >/dev/null
   grep ^frozen \$(find /sys/fs/cgroup -path \"*\$id*\" -name cgroup.events | head -n 1)
   rswarm rm -f \$id >/dev/null"
is "files of a container that is down are read" "deep" \
  "rswarm run --name down busybox sh -c 'mkdir /folder; echo deep > /folder/file'; rswarm cp down:/folder/file - | tar -xO"
is "an image is built" "built: 0" "rswarm build -q -t built /image >/dev/null; echo built: \$?"
is "layers of an image are seen as one" "one two" "rswarm run --rm built sh -c 'echo \$(cat /one /two)'"
groups() {
  find /sys/fs/cgroup/rswarm -type d | grep -c '/[0-9a-f]\{64\}$'
}
is "each container that runs has a group" "groups: 1" \
  "rswarm run -d --name one busybox sleep 1000 >/dev/null; echo groups: \$(groups)"
is "no container is left over" "containers: 0" \
  "rswarm rm -f greedy down one >/dev/null; echo containers: \$(rswarm ps -aq | wc -l)"
gone
is "no group of a container is left over" "groups: 0" "echo groups: \$(groups)"

echo 'remap:x:1000:1000::/:/bin/sh' >>/etc/passwd
echo 'remap:x:1000:' >>/etc/group
echo 'remap:100000:65536' >/etc/subuid
cp /etc/subuid /etc/subgid
daemon --userns-remap remap --data-root /var/lib/remapped
is "root of a container is nobody of the host" "0 100000" \
  "rswarm run --rm busybox sh -c 'echo \$(id -u) \$(cat /proc/self/uid_map | { read inside outside rest; echo \$outside; })'"
is "it has the files of its image all the same" "0 0" "rswarm run --rm busybox sh -c 'set -- \$(ls -ln /bin/busybox); echo \$3 \$4'"
is "and writes beside them" "0 0" "rswarm run --rm busybox sh -c 'echo new > /new; set -- \$(ls -ln /new); echo \$3 \$4'"
gone

is "three hosts are one swarm, and a stack answers on all of them" "demo: 0" "rswarm demo >/tmp/demo 2>&1; code=\$?; [ \$code = 0 ] || cat /tmp/demo; echo demo: \$code"
exit $failed
