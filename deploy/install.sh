#!/bin/sh
# Installs rswarm from a release, or a newer one over it; takes it away again.
#
#   sh install.sh [FOLDER|URL]            from there, from $RSWARM_FROM, or from the folder that this file is in
#   curl -fsSL URL/install.sh | sh -s -- URL
#   sh install.sh --uninstall [--purge]   containers are stopped, data and settings stay; --purge: they do not
#
# RSWARM_VERSION=X chooses among several that are there. RSWARM_SUMS=HEX is the SHA-256 that their SHA256SUMS must have.
#
# Everything is looked at before anything is changed. Nothing is done before the last line, so that a half of this file,
# which is what `curl | sh` may get, does nothing.
set -eu

die() {
  echo "install.sh: $*" >&2
  exit 1
}

say() {
  echo "install.sh: $*"
}

has() {
  command -v "$1" >/dev/null 2>&1
}

systemd_runs() {
  [ -d /run/systemd/system ] && has systemctl
}

# Says which package a file is of, if it is one's.
owner() {
  if has dpkg-query && dpkg-query -S "$1" 2>/dev/null | cut -d: -f1 | grep .; then return 0; fi
  # It makes a database for root where there is none, as on Debian.
  ls /var/lib/rpm /usr/lib/sysimage/rpm 2>/dev/null | grep -q '^rpmdb\|^Packages' || return 1
  if has rpm && rpm -qf --queryformat '%{NAME}\n' "$1" 2>/dev/null; then return 0; fi
  return 1
}

# What is fetched is kept here and is gone at the end, however that comes.
clean() {
  [ -z "${work:-}" ] || rm -rf "$work"
  rm -f "$bin/.rswarm.new"
}

# Brings a file of the release.
fetch() {
  case $from in
    http://* | https://*)
      if has curl; then
        curl -fsSL --retry 3 -o "$work/$1" "$from/$1" || die "cannot fetch $from/$1"
      elif has wget; then
        wget -q -O "$work/$1" "$from/$1" || die "cannot fetch $from/$1"
      else
        die "neither curl nor wget is here to fetch $from/$1; hint: fetch the release's files into a folder, and name it"
      fi
      ;;
    *) cp "$from/$1" "$work/$1" || die "there is no $1 in $from; hint: a release is made by cargo xtask dist" ;;
  esac
}

sum() {
  sha256sum "$1" | cut -d' ' -f1
}

# Puts a file in its place in one step, and notes it for the day when it is taken away.
put() {
  mkdir -p "$(dirname "$3")"
  cp "$2" "$3.new"
  chmod "$1" "$3.new"
  mv -f "$3.new" "$3"
  echo "$(sum "$3")  $3" >>"$share/installed.new"
}

# A file that an operator may change is put where none is, and replaced as long as it is what was put; else it is kept.
put_settings() {
  if [ ! -e "$2" ] && [ ! -L "$2" ]; then
    put 644 "$1" "$2"
    return
  fi
  noted=$(grep "  $2\$" "$share/installed" 2>/dev/null || true)
  if [ "$noted" = "$(sum "$2")  $2" ]; then
    put 644 "$1" "$2"
    return
  fi
  [ -z "$noted" ] || echo "$noted" >>"$share/installed.new"
  cmp -s "$1" "$2" || say "$2 is kept as it is; the release's is $3"
  put 644 "$1" "$3"
}

make_group() {
  grep -q '^rswarm:' /etc/group && return 0
  if has getent && getent group rswarm >/dev/null; then return 0; fi
  if has groupadd; then
    groupadd --system rswarm
  elif has addgroup; then
    addgroup -S rswarm
  else
    say "there is no group rswarm and nothing here to make it: the daemon's socket is for root alone"
  fi
}

install_release() {
  machine=$(uname -m)
  case $machine in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) die "there is no program for $machine; hint: x86_64 and aarch64 are built" ;;
  esac
  for path in /usr/bin/rswarm "$bin/rswarm"; do
    if [ -e "$path" ] && package=$(owner "$path"); then
      die "$path is of the package $package; hint: upgrade that, or remove it first"
    fi
  done
  case $from in
    file://*) from=${from#file://} ;;
    http://*)
      [ -n "${RSWARM_SUMS:-}" ] ||
        die "what comes from $from can be changed on the way; hint: https, or RSWARM_SUMS=HEX with the sum of SHA256SUMS"
      ;;
    https://*) ;;
  esac
  case $from in
    http://* | https://*) ;;
    *) [ -d "$from" ] || die "$from is neither a folder nor an address that is known here; hint: https://..." ;;
  esac
  for program in sha256sum tar gzip mktemp; do
    has "$program" || die "$program is not here"
  done

  work=$(mktemp -d)
  fetch SHA256SUMS
  [ -z "${RSWARM_SUMS:-}" ] || [ "$(sum "$work/SHA256SUMS")" = "$RSWARM_SUMS" ] ||
    die "SHA256SUMS of $from is not the one that RSWARM_SUMS asks for: nothing is installed"
  if has zstd; then form=zst; else form=gz; fi
  names=$(sed -n "s/^[0-9a-f]\{64\}  \(rswarm-[0-9][0-9A-Za-z.+~-]*-$machine\.tar\.$form\)\$/\1/p" "$work/SHA256SUMS")
  if [ -n "${RSWARM_VERSION:-}" ]; then
    names=$(echo "$names" | grep -Fx "rswarm-$RSWARM_VERSION-$machine.tar.$form") ||
      die "$from has no $RSWARM_VERSION for $machine"
  fi
  [ -n "$names" ] || die "$from has no release for $machine"
  [ "$(echo "$names" | wc -l)" -eq 1 ] ||
    die "$from has several: $(echo "$names" | tr '\n' ' '); hint: RSWARM_VERSION=X chooses"
  fetch "$names"
  (cd "$work" && grep "  $names\$" SHA256SUMS | sha256sum -c - >/dev/null 2>&1) ||
    die "$names of $from is not what its SHA256SUMS says: nothing is installed; hint: fetch it again"
  case $form in
    zst) zstd -q -d -c "$work/$names" >"$work/release.tar" ;;
    gz) gzip -d -c "$work/$names" >"$work/release.tar" ;;
  esac
  tar -xf "$work/release.tar" -C "$work"
  tree=$work/${names%.tar."$form"}
  # Where it will be, as programs may not be started in folders for what passes by.
  mkdir -p "$bin"
  cp "$tree/rswarm" "$bin/.rswarm.new"
  chmod 755 "$bin/.rswarm.new"
  version=$("$bin/.rswarm.new" --version) || die "the program of $names does not start here: nothing is installed"
  version=$(echo "$version" | head -n 1)

  mkdir -p "$share"
  : >"$share/installed.new"
  make_group
  # /var/lib/rswarm is closed to the host's other users: a setuid file of an image must not be reachable.
  mkdir -p /etc/rswarm
  [ -d /var/lib/rswarm ] || mkdir -m 710 /var/lib/rswarm
  put_settings "$tree/deploy/daemon.toml" /etc/rswarm/daemon.toml "$share/daemon.toml"
  [ ! -d /etc/apparmor.d ] || put_settings "$tree/deploy/apparmor/docker-default" /etc/apparmor.d/docker-default \
    "$share/docker-default"
  for unit in rswarm.service rswarm-host.service; do
    put 644 "$tree/deploy/$unit" "$units/$unit"
    [ ! -e "/etc/systemd/system/$unit" ] ||
      say "/etc/systemd/system/$unit is used in place of the release's $units/$unit; remove it if it is not yours"
  done
  for page in "$tree"/man/*; do
    put 644 "$page" "/usr/local/share/man/man1/${page##*/}"
  done
  put 644 "$tree/completions/rswarm.bash" /usr/local/share/bash-completion/completions/rswarm
  put 644 "$tree/completions/rswarm.fish" /usr/local/share/fish/vendor_completions.d/rswarm.fish
  put 644 "$tree/completions/rswarm.zsh" /usr/local/share/zsh/site-functions/_rswarm
  put 644 "$tree/LICENSE" "$share/LICENSE"
  put 644 "$tree/NOTICE" "$share/NOTICE"
  put 755 "$tree/install.sh" "$share/install.sh"
  put 755 "$bin/.rswarm.new" "$bin/rswarm"
  # What an older release had and this one has not.
  if [ -e "$share/installed" ]; then
    while read -r _ path; do
      grep -q "  $path\$" "$share/installed.new" || rm -f "$path"
    done <"$share/installed"
  fi
  mv -f "$share/installed.new" "$share/installed"

  say "$version is installed; sh $share/install.sh --uninstall takes it away"
  if systemd_runs; then
    systemctl daemon-reload
    systemctl enable rswarm.service
    # Containers run on while the daemon is replaced.
    systemctl restart rswarm.service ||
      die "the daemon does not start; hint: journalctl -u rswarm.service, and $bin/rswarm doctor"
    say "the daemon runs; what to do next: rswarm doctor, rswarm swarm init"
  else
    say "systemd does not run here, so nothing was started; what to do next: rswarm daemon, as root"
  fi
}

# What runs would run on, and nobody could look at it or end it.
no_containers() {
  # The program beside each of them is started from memory; those in containers are what a container runs.
  for process in $(ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n 's|.* \(/proc/[0-9]*\)/exe -> /memfd:rswarm-shim.*|\1|p'); do
    [ "$(readlink "$process/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] ||
      die "containers run; hint: systemctl start rswarm, stop them (rswarm ps, rswarm stop NAME), and again"
  done
}

uninstall() {
  if [ -e "$bin/rswarm" ] && package=$(owner "$bin/rswarm"); then
    die "$bin/rswarm is of the package $package; hint: remove that"
  fi
  [ -e "$share/installed" ] || [ "$purge" = yes ] || die "nothing is installed by this: $share/installed is not there"
  if systemd_runs && systemctl --quiet is-active rswarm.service; then
    # Nobody would be left to look after them: containers get their stop signal and their grace, tasks run elsewhere.
    "$bin/rswarm" $own system shutdown || say "containers were not stopped in order"
    no_containers
    systemctl disable --now rswarm.service
  elif [ -x "$bin/rswarm" ] && "$bin/rswarm" $own info >/dev/null 2>&1; then
    die "a daemon runs; hint: rswarm system shutdown, then end it"
  else
    no_containers
    ! systemd_runs || systemctl disable rswarm.service || true
  fi
  # Before anything is gone: what is mounted there may be somebody else's.
  if [ "$purge" = yes ] && grep -q ' /var/lib/rswarm/' /proc/self/mountinfo; then
    die "something is mounted below /var/lib/rswarm; hint: umount what 'grep rswarm /proc/self/mountinfo' shows, and again"
  fi
  if [ -e "$share/installed" ]; then
    while read -r sum path; do
      [ -e "$path" ] || continue
      case $path in
        /etc/*)
          # Settings that were changed are an operator's.
          if [ "$purge" = no ] && [ "$(sum "$path")" != "$sum" ]; then
            say "$path is kept: it was changed"
            continue
          fi
          ;;
      esac
      rm -f "$path"
    done <"$share/installed"
    rm -f "$share/installed"
  fi
  [ ! -d "$share" ] || rmdir "$share" 2>/dev/null || true
  if [ "$purge" = yes ]; then
    # What holds networks' namespaces.
    grep -o ' /run/rswarm/[^ ]*' /proc/self/mountinfo | sort -r | while read -r at; do umount "$at"; done
    rm -rf /etc/rswarm /var/lib/rswarm /run/rswarm
    if grep -q '^rswarm:' /etc/group; then
      if has groupdel; then groupdel rswarm; elif has delgroup; then delgroup rswarm; fi
    fi
    say "rswarm is gone, and so are its images, containers, volumes and settings"
  else
    rmdir /etc/rswarm 2>/dev/null || true
    say "rswarm is gone; /var/lib/rswarm is kept: --uninstall --purge removes it"
  fi
  ! systemd_runs || systemctl daemon-reload
}

main() {
  umask 022
  bin=/usr/local/bin
  share=/usr/local/share/rswarm
  units=/usr/local/lib/systemd/system
  # This host's daemon, whatever root's environment names.
  own='-H unix:///run/rswarm/docker.sock'
  action=install
  purge=no
  from=${RSWARM_FROM:-}
  for word in "$@"; do
    case $word in
      --uninstall) action=uninstall ;;
      --purge) purge=yes ;;
      -h | --help)
        echo "usage: install.sh [FOLDER|URL] | install.sh --uninstall [--purge]"
        exit 0
        ;;
      -*) die "there is no option $word; hint: --uninstall, --purge" ;;
      *) from=$word ;;
    esac
  done
  [ "$purge" = no ] || [ "$action" = uninstall ] || die "--purge goes with --uninstall"
  [ "$(id -u)" -eq 0 ] || die "only root can install; hint: sudo sh $0"
  trap clean EXIT
  trap 'exit 1' HUP INT TERM
  if [ "$action" = uninstall ]; then
    uninstall
    return
  fi
  # A release's folder has its own installer in it.
  if [ -z "$from" ] && [ -f "$0" ] && [ -f "$(dirname "$0")/SHA256SUMS" ]; then
    from=$(cd "$(dirname "$0")" && pwd)
  fi
  [ -n "$from" ] || die "from where? hint: install.sh FOLDER, install.sh https://..., or RSWARM_FROM"
  from=${from%/}
  install_release
}

main "$@"
