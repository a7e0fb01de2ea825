# shellcheck shell=bash
# What the commands in tools/ share. A command sources this file after
# `set -euo pipefail`.

# The same surroundings for everybody. A locale that came along by ssh need not
# exist here, another language changes the messages that tests read, servers of
# root must be able to enter what root makes, and a caller's own PGHOST and its
# sisters name a server that is none of ours.
export LC_ALL=C.UTF-8 LANG=C.UTF-8
umask 022
unset LANGUAGE CDPATH MAKEFLAGS MAKELEVEL MFLAGS GREP_OPTIONS GREP_COLORS
for name in "${!PG@}"; do
	[ "$name" = PG_CONFIG ] || unset "$name"
done
unset name

MQ_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MQ_MAJOR=15
PG_BIN=

# Messages. Colours only where a person looks.

if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ] && [ -z "${NO_COLOR:-}" ]; then
	C_STEP=$'\e[1m' C_GOOD=$'\e[32m' C_BAD=$'\e[31m' C_OFF=$'\e[0m'
else
	C_STEP='' C_GOOD='' C_BAD='' C_OFF=''
fi

step() { printf '%s== %s%s\n' "$C_STEP" "$*" "$C_OFF"; }
good() { printf '%s%s%s\n' "$C_GOOD" "$*" "$C_OFF"; }
bad() { printf '%s%s%s\n' "$C_BAD" "$*" "$C_OFF"; }

# Says why the command cannot go on, each argument a line, and ends it.
die() {
	local line
	for line in "$@"; do
		printf '%s: %s\n' "$(basename "$0")" "$line" >&2
	done
	exit 1
}

# Rights. Root installs and runs servers as the user postgres, since a
# PostgreSQL server refuses to run as root; everybody else runs them as himself.

is_root() { [ "$(id -u)" -eq 0 ]; }

# Runs a command as root; what it is for is said when that cannot be done.
as_root() {
	local why=$1
	shift
	if is_root; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -- "$@" || die "$why failed (run with sudo: $*)"
	else
		die "$why needs root, and there is no sudo here; as root run: $*"
	fi
}

# Runs a command as the user that servers run as, from a folder it can enter.
as_server() {
	if is_root; then
		(cd / && runuser -u postgres -- "$@")
	else
		(cd / && "$@")
	fi
}

server_user() { if is_root; then echo postgres; else id -un; fi; }

# Gives a folder to the user that servers run as.
give_to_server() { if is_root; then chown -R postgres: "$@"; fi; }

# A temporary folder for that user, $MQ_TMP, removed at exit. A caller's own
# clean-up goes into the function at_exit.
make_tmp() {
	MQ_TMP=$(mktemp -d "${TMPDIR:-/tmp}/mq-XXXXXX")
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	give_to_server "$MQ_TMP"
	as_server test -w "$MQ_TMP" ||
		die "the user $(server_user) cannot write into $MQ_TMP; set TMPDIR to a folder it can enter"
}

at_exit() { :; }

# Ends everything that was started by a process, and that process if it is not us.
kill_tree() {
	local child children=()
	read -ra children <"/proc/$1/task/$1/children" || true
	for child in "${children[@]}"; do kill_tree "$child"; done
	[ "$1" = $$ ] || kill "$1" || true
} 2>/dev/null

clean_up() {
	kill_tree $$
	at_exit
	cluster_stop
	rm -rf "$MQ_TMP"
}

# Packages.

has_package() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Installs the Debian packages of the list that are missing, and only those.
need_packages() {
	local p missing=() drop_in=/etc/postgresql-common/createcluster.d/mq-no-main.conf
	if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
		[ -n "${MQ_NO_APT:-}" ] && return
		die "there is no apt-get here, so nothing can be installed." \
			"Needed are the equivalents of these Debian packages: $*" \
			"With them in place, go on with MQ_NO_APT=1."
	fi
	for p in "$@"; do
		has_package "$p" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ -n "${MQ_NO_APT:-}" ]; then
		die "these Debian packages are missing: ${missing[*]} (and MQ_NO_APT forbids to install them)"
	fi

	step "installing ${missing[*]}"
	if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
		as_root "updating the package lists" apt-get update -q ||
			die "apt-get update failed: the packages ${missing[*]} cannot be fetched"
		for p in "${missing[@]}"; do
			apt-cache show "$p" >/dev/null 2>&1 ||
				die "apt knows no package $p: mq is built on Debian 12 or with apt.postgresql.org added"
		done
	fi

	# The server's package would make and start a cluster of its own: nobody asked
	# for one. A cluster that exists already is left as it is.
	case " ${missing[*]} " in
	*" postgresql-$MQ_MAJOR "*)
		apt_install postgresql-common
		as_root "keeping the package from starting a server" sh -c \
			"mkdir -p '${drop_in%/*}' && echo 'create_main_cluster = false' >'$drop_in'"
		apt_install "${missing[@]}" || {
			as_root "cleaning up" rm -f "$drop_in"
			die "apt-get install failed"
		}
		as_root "cleaning up" rm -f "$drop_in"
		;;
	*) apt_install "${missing[@]}" ;;
	esac
}

# A list as old as its mirror's last change may name files that are gone.
apt_install() {
	local apt=(env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends)
	if is_root; then
		"${apt[@]}" "$@" || { apt-get update -q && "${apt[@]}" "$@"; } ||
			die "apt-get could not install: $*"
	else
		as_root "installing $*" "${apt[@]}" "$@"
	fi
}

# The server's programs. PG_CONFIG says where, else Debian's place of our major.

find_pg() {
	local config version
	if [ -n "${PG_CONFIG:-}" ]; then
		config=$PG_CONFIG
		command -v "$config" >/dev/null || die "PG_CONFIG=$config: no such program"
	elif [ -x "/usr/lib/postgresql/$MQ_MAJOR/bin/pg_config" ]; then
		config=/usr/lib/postgresql/$MQ_MAJOR/bin/pg_config
	elif ! config=$(command -v pg_config); then
		die "no pg_config found: PostgreSQL $MQ_MAJOR and its development files are needed"
	fi
	version=$("$config" --version) && [ -n "$version" ] || die "$config --version does not answer"
	case $version in
	"PostgreSQL $MQ_MAJOR."* | "PostgreSQL $MQ_MAJOR"[a-z]*) ;;
	*) die "$config belongs to $version, but PostgreSQL $MQ_MAJOR is needed (PG_CONFIG can name another one)" ;;
	esac
	PG_CONFIG=$config
	PG_BIN=$("$config" --bindir)
	PGXS_SRC=$(dirname "$("$config" --pgxs)")/..
	[ -x "$PG_BIN/initdb" ] || die "$PG_BIN has no initdb: the server of PostgreSQL $MQ_MAJOR is missing"
	[ -f "$PGXS_SRC/makefiles/pgxs.mk" ] ||
		die "$config has no PGXS: the package postgresql-server-dev-$MQ_MAJOR is missing"
	export PG_CONFIG PG_BIN PGXS_SRC
}

# Building. In a copy, so that the checkout stays as it is, whoever owns it. With
# MQ_BUILT what is built there already comes along, and is not built again.

copy_sources() {
	local built=(--exclude='*.o' --exclude='*.so' --exclude='*.bc')
	[ -z "${MQ_BUILT:-}" ] || built=()
	mkdir -p "$1"
	tar -C "$MQ_ROOT" --exclude=./.git "${built[@]}" -cf - . |
		tar -C "$1" --no-same-owner -xf -
}

build_in() {
	step "building mq with $("$PG_CONFIG" --version)"
	make -s -j2 -C "$1" PG_CONFIG="$PG_CONFIG" all || die "the build failed"
}

# Is exactly what was built in this folder what the server has?
is_installed() {
	local lib ext file
	lib=$("$PG_CONFIG" --pkglibdir)
	ext=$("$PG_CONFIG" --sharedir)/extension
	cmp -s "$1/mq.so" "$lib/mq.so" && cmp -s "$1/mq.control" "$ext/mq.control" || return
	for file in "$1"/sql/*.sql; do
		cmp -s "$file" "$ext/${file##*/}" || return
	done
}

install_from() {
	! is_installed "$1" || return 0
	step "installing mq into $("$PG_CONFIG" --pkglibdir)"
	is_root || command -v sudo >/dev/null ||
		die "installing mq needs root, and there is no sudo here; as root run:" \
			"make -C $MQ_ROOT PG_CONFIG=$PG_CONFIG install"
	as_root "installing mq" make -s -C "$1" PG_CONFIG="$PG_CONFIG" install || die "make install failed"
}

# A private server: its own data folder and socket folder, no TCP port.

# cluster_init DATA SOCKET: makes the folders' cluster, preloading mq.
cluster_init() {
	as_server "$PG_BIN/initdb" -D "$1" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N \
		>"$MQ_TMP/initdb.log" 2>&1 || {
		cat "$MQ_TMP/initdb.log" >&2
		die "initdb failed"
	}
	cat <<-CONF | as_server tee -a "$1/postgresql.conf" >/dev/null
		shared_preload_libraries = 'mq'
		listen_addresses = ''
		port = 5432
		unix_socket_directories = '$2'
		unix_socket_permissions = 0700
		cluster_name = 'mq'
	CONF
}

# cluster_start DATA LOG
cluster_start() {
	as_server "$PG_BIN/pg_ctl" -D "$1" -l "$2" -w -t 60 -s start >"$MQ_TMP/start.log" 2>&1 </dev/null || {
		cat "$MQ_TMP/start.log" >&2
		as_server tail -n 30 "$2" >&2 || true
		die "the server did not start; its log stands above"
	}
}

cluster_runs() { as_server "$PG_BIN/pg_ctl" -D "$1" status >/dev/null 2>&1; }

# The server of temporary_cluster, if there is one.
MQ_DATA=
cluster_stop() {
	[ -n "$MQ_DATA" ] || return 0
	if cluster_runs "$MQ_DATA"; then
		as_server "$PG_BIN/pg_ctl" -D "$MQ_DATA" -w -t 30 -m fast -s stop >/dev/null 2>&1 ||
			as_server "$PG_BIN/pg_ctl" -D "$MQ_DATA" -w -t 30 -m immediate -s stop >/dev/null 2>&1 || true
	fi
	MQ_DATA=
}

# Starts a server that lasts as long as the command. Its settings come on
# standard input; psql and friends find it through PGHOST, PGPORT and PGUSER.
temporary_cluster() {
	# A socket's path is short by nature, a TMPDIR need not be.
	if [ ${#MQ_TMP} -gt 80 ]; then
		die "TMPDIR is too long a path for a socket: $MQ_TMP"
	fi
	as_server mkdir -m 700 "$MQ_TMP/socket"
	cluster_init "$MQ_TMP/data" "$MQ_TMP/socket"
	as_server tee -a "$MQ_TMP/data/postgresql.conf" >/dev/null
	MQ_DATA=$MQ_TMP/data
	MQ_LOG=$MQ_TMP/server.log
	cluster_start "$MQ_DATA" "$MQ_LOG"
	export PGHOST=$MQ_TMP/socket PGPORT=5432 PGUSER=postgres
}
