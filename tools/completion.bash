# SPDX-License-Identifier: Apache-2.0
# bash completion for LunFS' programs.  What there is to complete, the programs' --help says.

# Words of the commands that lunfs --help lists, at place $2, after those in "$3": lunfs PLACE [FIRST]
_lunfs_words() {
	"$1" --help 2>/dev/null | sed -n 's/^  \([a-z].*\)/\1/p' |
		awk -v place="$2" -v first="$3" -v second="$4" '
		place == 1 { print $1 }
		place == 2 && $1 == first && $2 ~ /^[a-z|]+$/ { print $2 }
		place == 3 && $1 == first && $2 == second && $3 ~ /^[a-z|]+$/ { print $3 }' |
		tr '|' '\n' | sort -u
}

_lunfs_options() {
	"$1" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u
}

# The datastores that the daemon has, each with what may follow it.
_lunfs_datastores() {
	"$1" --json status 2>/dev/null | sed -n 's/^ *"label": "\([^"]*\)".*/\1/p'
}

_lunfs() {
	local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local words=() i

	COMPREPLY=()
	case $prev in
	--run-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	--format) mapfile -t COMPREPLY < <(compgen -W "raw qcow2 vmdk vhdx" -- "$cur"); return ;;
	--enospc) mapfile -t COMPREPLY < <(compgen -W "pause report" -- "$cur"); return ;;
	--size|--rate|--iops|--bytes|--shares|--queues|--serial|--iops-burst|--bytes-burst|--to) return ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_lunfs_options "$program")" -- "$cur")
		return
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--run-dir|--size|--format|--rate|--enospc|--iops|--iops-burst|--bytes|--bytes-burst|--shares|--queues|--serial|--to|-o)
			((i++)) ;;
		-*) ;;
		*) words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	local found
	found=$(_lunfs_words "$program" $((${#words[@]} + 1)) "${words[0]-}" "${words[1]-}")
	if [ -n "$found" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$found" -- "$cur")
	elif [[ ${words[0]-} == attach || ${words[0]-} == debug || ${words[0]-} == scan || ${words[1]-} == import ]] &&
	     [[ $cur == */* || $cur == .* ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -W "$(_lunfs_datastores "$program")" -- "$cur")
	fi
}

# The commands that lunvm --help shows how to use.
_lunvm_words() {
	"$1" --help 2>/dev/null | sed -n 's/^\(usage:\|      \) lunvm \([a-z|]*\) .*/\2/p; s/^       lunvm \([a-z]*\)$/\1/p' |
		tr '|' '\n' | sed '/^$/d' | sort -u
}

_lunvm() {
	local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local words=() dir=() i

	COMPREPLY=()
	case $prev in
	--run-dir|--daemon-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	--kernel|--initrd) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	--on-reset) mapfile -t COMPREPLY < <(compgen -W "restart exit" -- "$cur"); return ;;
	--net) mapfile -t COMPREPLY < <(compgen -W "none" -- "$cur"); return ;;
	--user) mapfile -t COMPREPLY < <(compgen -u -- "$cur"); return ;;
	--name|--memory|--cpus|--cmdline|--disk|--timeout) return ;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_lunfs_options "$program")" -- "$cur")
		return
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--run-dir) dir=(--run-dir "${COMP_WORDS[++i]}") ;;
		--detach|--watch|--json|--help|--version) ;;
		--*) ((i++)) ;;
		*) words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	case ${words[0]-} in
	"") mapfile -t COMPREPLY < <(compgen -W "$(_lunvm_words "$program")" -- "$cur") ;;
	run) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	autostart) mapfile -t COMPREPLY < <(compgen -W "$(_lunfs_datastores lunfs)" -- "$cur") ;;
	list) ;;
	*) [ ${#words[@]} -gt 1 ] || mapfile -t COMPREPLY < <(compgen -W "$("$program" "${dir[@]}" list 2>/dev/null |
		awk 'NR > 1 { print $1 }')" -- "$cur") ;;
	esac
}

# Programs that take options and files.
_lunfs_plain() {
	local cur=${COMP_WORDS[COMP_CWORD]}

	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_lunfs_options "${COMP_WORDS[0]}")" -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	fi
}

complete -F _lunfs lunfs
complete -F _lunvm lunvm
complete -F _lunfs_plain mkfs.lunfs fsck.lunfs mount.lunfs lunfsd lunfs-target lunfs-vhost-bench
