#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Volumes as earlier programs wrote them: each version of the format is read for ever, by
# ourselves and by the reader that knows FORMAT.md only.
#
# v1.img.xz: 64 MiB, format 1, of a host that was killed: inline and sparse files, a big directory,
# links, attributes, an ACL, device nodes, a snapshot with a disk and a linked clone on it, and
# three transactions that are in the journal only.  v1.list: names, and checksums of the contents.
set -u
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LUNFS_LOCK_DIR=$work/locks
bad=0

claim() {	# claim NAME COMMAND…
	local name=$1
	shift
	if "$@" >"$work/out" 2>&1; then
		echo "PASS: golden $name"
	else
		echo "FAIL: golden $name"
		tail -n 20 "$work/out"
		bad=1
	fi
}

listing() {	# listing IMAGE: what v1.list was made by
	rm -rf "$work/got"
	python3 tools/lunfs-reader.py ls -R "$1" / &&
		python3 tools/lunfs-reader.py get "$1" / "$work/got" 2>/dev/null &&
		(cd "$work/got" && find . -type f -size -1G -exec sha256sum {} + | sort -k 2)
}

same_list() { listing "$1" | diff "$2" -; }
far_is_there() { tail -c +4000000000001 "$work/got/vm1/huge" | head -c 3 | grep -qx far; }

# What a check says of the volume that a dump makes is what it says of the one that was dumped,
# and nothing that a file held is in it.
same_dump() {
	local name=$1
	rm -f "$work/dump" "$work/again.img"
	build/bin/lunfs debug "$work/$name.img" dump "$work/dump" &&
		build/bin/lunfs debug restore "$work/dump" "$work/again.img" || return 1
	for image in "$name" again; do
		build/bin/fsck.lunfs -n -v "$work/$image.img" | sed "s|^$work/$image.img||" \
			>"$work/$image.check"
	done
	diff "$work/$name.check" "$work/again.check" || return 1
	! grep -aq "line of file" "$work/again.img"
}
refused() { ! "$@"; }

# Lines of pass, done, total and device, as e2fsck -C writes them.
shows_progress() {
	build/bin/fsck.lunfs -n -C5 "$1" 5>"$work/progress" || return 1
	! grep -qvE "^[0-9]+ [0-9]+ [0-9]+ $1\$" "$work/progress" &&
		grep -qE "^4 ([0-9]+) \\1 " "$work/progress"
}

# It looks for heartbeats of the one that was killed for some seconds.
is_cancelled() {	# is_cancelled SIGNAL IMAGE [option…]: in the middle of a check
	local signal=$1 pid i
	shift
	: >"$work/progress"
	build/bin/fsck.lunfs -n -C5 "$@" 5>"$work/progress" >"$work/cancelled" &
	pid=$!
	for i in $(seq 3000); do
		[ -s "$work/progress" ] && break
		sleep 0.02
	done
	kill -"$signal" $pid
	wait $pid
	[ $? -eq 32 ]
}

# A document, whatever happens and whatever the volume's file is called.
json() { python3 -c 'import json, sys; d = json.load(open(sys.argv[1], "rb")); sys.exit(not eval(sys.argv[2]))' "$@"; }

cancelled_says_so() {
	is_cancelled INT "$1" --json && json "$work/cancelled" \
		'd["cancelled"] and "cancelled" in d["error"]["message"] and d["findings"] == []'
}

# All types of blocks, by the commands that find them, as text and as JSON: the same fields.
shows_blocks() {
	python3 - build/bin/lunfs "$1" <<'EOF'
import json, re, subprocess, sys
lunfs, image = sys.argv[1:]
types = set()

def run(*args):
    return subprocess.run([lunfs, "debug", *args], check=True, stdout=subprocess.PIPE).stdout.decode()

def show(*what):
    blocks = json.loads(run("--json", image, *map(str, what)))["blocks"]
    text = run(image, *map(str, what))
    shown = set(re.findall(r"^([a-z0-9_]+)(?:\[\d+\])?: ", text, re.M))
    for block in blocks:
        if block["type"]:
            types.add(block["type"])
            missing = set(block["fields"]) - shown
            assert not missing, (what, missing)
    return blocks

s = show("super")[0]["fields"]
for what in "slot", "journal", "orphans":
    show(what, 1)
for what in "ag", "index":
    show(what, 0)
show("lock", s["lock_addr"])
show("bitmap", s["ag_addr"] + (1 << 20))
for slot in range(s["slot_count"]):
    start = s["journals_addr"] + slot * s["journal_size"]
    tail = max(show("journal", slot)[:2], key=lambda b: b["fields"]["version"])["fields"]
    desc = show("block", start + 8192 + tail["block"] * 4096)[0]
    if desc["type"] == "journal descriptor":
        show("block", desc["address"] + 4096 * (desc["fields"]["count"] + 1))
for entry in show("index", 0)[0]["fields"]["entries"]:
    for i in range(entry["count"]):
        number = s["ag_addr"] // 4096 + entry["block"] + 2 * i
        if int(entry["used"], 16) >> i & 1:
            show("inode", number)
            show("tree", number)
wanted = {"superblock", "host slot", "lock", "journal tail", "journal descriptor", "journal commit",
          "allocation group", "bitmap", "inode table", "inode", "map node", "map leaf", "directory leaf",
          "extended attributes", "orphan list"}
assert wanted <= types, wanted - types
EOF
}

any_path_has_json() {
	local odd=$work/$'odd-\xff-name'
	ln -s "$1" "$odd"
	build/bin/fsck.lunfs -n --json "$odd" >"$work/odd.json" &&
		json "$work/odd.json" 'd["clean"] and d["device"].endswith("/odd-?-name")' || return 1
	rm "$odd"
	! build/bin/fsck.lunfs -n --json "$odd" >"$work/odd.json" &&
		json "$work/odd.json" 'd["device"].endswith("/odd-?-name") and "error" in d'
}

for packed in tests/golden/v*.img.xz; do
	name=$(basename "$packed" .img.xz)
	python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$packed" "$work/$name.img"
	claim "$name is clean" build/bin/fsck.lunfs -n "$work/$name.img"
	claim "$name: progress on a descriptor" shows_progress "$work/$name.img"
	claim "$name: a check can be cancelled" is_cancelled TERM "$work/$name.img"
	claim "$name: a check that is cancelled says so in JSON" cancelled_says_so "$work/$name.img"
	claim "$name: there is JSON of a path that is no UTF-8" any_path_has_json "$work/$name.img"
	claim "$name: every type of block is shown" shows_blocks "$work/$name.img"
	claim "$name reads as it did" same_list "$work/$name.img" "tests/golden/$name.list"
	claim "$name is dumped and restored" same_dump "$name"
	claim "$name: no dump is written over anything" refused build/bin/lunfs debug \
		"$work/$name.img" dump "$work/$name.img"
	claim "$name: what is no dump is refused" refused build/bin/lunfs debug restore \
		"$work/$name.img" "$work/no.img"
	claim "$name: a disk of 5 TiB has its one line where it was" far_is_there
done
exit $bad
