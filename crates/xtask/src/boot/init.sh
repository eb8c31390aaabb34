#!/bin/sh
# First process of the machine: the file system of the archive cannot be pivoted away from, so all moves to another one.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=80% tmpfs /new
for folder in bin etc lib sbin; do cp -a /$folder /new/; done
cp /init /story.sh /new/
for folder in dev proc root run sys tmp usr/bin var/lib; do mkdir -p /new/$folder; done
for folder in dev proc sys; do mount --move /$folder /new/$folder; done
exec switch_root /new /bin/sh -c '
  export PATH=/bin:/sbin HOME=/root
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs tmpfs /run
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  hostname boot
  ip link set lo up
  modprobe virtio_pci; modprobe virtio_blk
  tries=0; until [ -b /dev/vda ] || [ $tries = 50 ]; do tries=$((tries + 1)); sleep 0.1; done
  mount -t ext4 /dev/vda /var/lib
  for module in overlay bridge br_netfilter veth vxlan nf_tables tun; do modprobe $module; done
  sh /story.sh
  echo "story ended: $?"
  poweroff -f
'
