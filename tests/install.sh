#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make install` puts programs, manual pages, completion and units where they are looked for, and
# `make uninstall` takes away just that.
set -u
cd "$(dirname "$0")/.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
bad=0

say() {		# say STATUS NAME WHY
	if [ "$1" -eq 0 ]; then
		echo "PASS: install $2"
	else
		echo "FAIL: install $2: $3"
		bad=1
	fi
}

for prefix in /usr/local /usr; do
	mkdir -p "$root$prefix/sbin" "$root/lib/systemd/system"
	echo other | tee "$root$prefix/sbin/other" >"$root/lib/systemd/system/other.service"
	make -s install DESTDIR="$root" PREFIX=$prefix >"$root/log" 2>&1
	say $? "to $prefix" "$(tail -n 1 "$root/log")"
	missing=
	for program in build/bin/*; do
		[ "$("$root$prefix/sbin/${program##*/}" --version 2>&1)" = "$($program --version 2>&1)" ] ||
			missing+=" ${program##*/}"
		[ -e "$root$prefix/share/bash-completion/completions/${program##*/}" ] ||
			missing+=" completion of ${program##*/}"
	done
	for page in docs/man/*.[578]; do
		[ -e "$root$prefix/share/man/man${page##*.}/${page##*/}" ] || missing+=" $page"
	done
	for unit in "$root"/lib/systemd/system/lun*.service; do
		grep -q "$prefix/sbin/lun" "$unit" || missing+=" $prefix in ${unit##*/}"
	done
	say "${#missing}" "to $prefix is whole" "missing:$missing"
	make -s uninstall DESTDIR="$root" PREFIX=$prefix >"$root/log" 2>&1
	left=$(cd "$root" && find . ! -type d ! -name log ! -name 'other*')
	[ -e "$root$prefix/sbin/other" ] && [ -e "$root/lib/systemd/system/other.service" ] && [ -z "$left" ]
	say $? "is taken from $prefix, nothing else" "left or lost: ${left:-of others}"
done
exit $bad
