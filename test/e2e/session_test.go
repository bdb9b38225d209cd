package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/keifs/keifs/test/need"
	"github.com/keifs/keifs/test/versitygw"
)

// The programs of the scripted session, and Debian's package of each.
func needPrograms(t *testing.T) {
	t.Helper()
	for tool, pkg := range map[string]string{
		"rsync": "rsync", "git": "git", "sqlite3": "sqlite3", "python3": "python3", "tar": "tar",
	} {
		need.Tool(t, tool, pkg)
	}
}

// TestScriptedSession is the main job: plain programs work in the mount, and a
// plain S3 client finds the same bytes; then the other way round.
func TestScriptedSession(t *testing.T) {
	needPrograms(t)
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	h := s3Host(t, srv)
	m := h.mount("s3://" + bucket)

	step := func(name string, do func()) {
		if !t.Run(name, func(t *testing.T) {
			parent := h.t
			h.t = t
			defer func() { h.t = parent }()
			do()
		}) {
			t.FailNow() // later steps build on this one
		}
	}

	step("branch", func() {
		m.sh(".", `mkdir main; test "$(ls)" = main`)
		out := h.run(keifs, "branch", "-C", m.dir)
		if !strings.Contains(out, "main") {
			h.t.Fatalf("keifs branch: %q", out)
		}
	})
	step("coreutils", func() {
		m.sh("main", `
			mkdir -p docs/deep/er
			printf 'one\ntwo\n' > docs/a.txt
			cp docs/a.txt docs/b.txt
			cmp docs/a.txt docs/b.txt
			sed -i s/two/three/ docs/b.txt
			test "$(cat docs/b.txt)" = "$(printf 'one\nthree')"
			echo four >> docs/b.txt
			test "$(tail -n1 docs/b.txt)" = four
			mv docs/b.txt docs/deep/er/c.txt
			test ! -e docs/b.txt
			ln -s ../a.txt docs/deep/link; test "$(cat docs/deep/link)" = "$(cat docs/a.txt)"
			chmod 750 docs/a.txt; test "$(stat -c %a docs/a.txt)" = 750
			touch -d '2001-02-03 04:05:06.789' docs/a.txt
			test "$(stat -c %y docs/a.txt | cut -c1-23)" = '2001-02-03 04:05:06.789'
			dd if=/dev/urandom of=big bs=1M count=20 status=none
			cp big big2; cmp big big2
			dd if=/dev/zero of=big2 bs=4096 seek=100 count=3 conv=notrunc status=none
			! cmp -s big big2
			truncate -s 5M big2; test "$(stat -c %s big2)" = 5242880
			head -c 409600 big | cmp - <(head -c 409600 big2)
			rm big2; test ! -e big2
			find . -type f | sort > /dev/null; du -s . > /dev/null
			mv docs papers; test -f papers/deep/er/c.txt; test ! -e docs
			mkdir empty; rmdir empty; ! rmdir papers 2>/dev/null
			! ln papers/a.txt hard 2>/dev/null`)
		got := srv.Get(h.t, bucket, "main/papers/deep/er/c.txt")
		if string(got) != "one\nthree\nfour\n" {
			h.t.Fatalf("in the bucket: %q", got)
		}
		want, err := os.ReadFile(m.path("main/big"))
		if err != nil {
			h.t.Fatal(err)
		}
		if !bytes.Equal(srv.Get(h.t, bucket, "main/big"), want) {
			h.t.Fatal("big differs in the bucket")
		}
	})
	step("tar", func() {
		m.sh("main", `
			mkdir tree; for i in $(seq 40); do mkdir -p tree/d$((i%7)); head -c $((i*997)) /dev/urandom > tree/d$((i%7))/f$i; done
			chmod 600 tree/d1/f1; ln -s d1/f1 tree/sym
			tar cf t.tar tree
			mkdir out; tar xpf t.tar -C out
			diff -r tree out/tree
			(cd tree && find . -type f -printf '%P %m %s %T@\n' | sort) > /tmp/keifs-e2e-$$.1
			(cd out/tree && find . -type f -printf '%P %m %s %T@\n' | sort) > /tmp/keifs-e2e-$$.2
			sed -i 's/\(\.[0-9]*\)$//' /tmp/keifs-e2e-$$.1 /tmp/keifs-e2e-$$.2
			diff /tmp/keifs-e2e-$$.1 /tmp/keifs-e2e-$$.2; rm /tmp/keifs-e2e-$$.[12]`)
	})
	step("rsync", func() {
		m.sh("main", `
			rsync -a tree/ synced/
			diff -r tree synced
			again=$(rsync -ai tree/ synced/)
			test -z "$again" || { echo "second rsync copied: $again"; exit 1; }`)
	})
	step("git", func() {
		m.sh("main", `
			mkdir repo; cd repo; git init -q -b trunk .
			cp -r ../tree .; git add .; git commit -qm one
			echo more >> tree/d2/f2; git commit -qam two
			test "$(git rev-list --count HEAD)" = 2
			git fsck --strict; test -z "$(git status --porcelain)"
			cd ..; git clone -q repo clone; cd clone; git fsck --strict
			test -z "$(git status --porcelain)"; git gc -q; git fsck`)
	})
	step("sqlite", func() {
		m.sh("main", `
			sqlite3 db.sqlite "create table t(a integer primary key, b text); with recursive n(i) as (select 1 union all select i+1 from n where i<2000) insert into t select i, hex(randomblob(20)) from n;"
			for i in $(seq 20); do sqlite3 db.sqlite "update t set b=b||'x' where a%20=$i; delete from t where a=$i*7"; done
			test "$(sqlite3 db.sqlite 'pragma integrity_check')" = ok
			test "$(sqlite3 db.sqlite 'select count(*) from t')" = 1980`)
	})
	step("zipfile", func() {
		m.sh("main", `python3 - <<'EOF'
import zipfile
with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for i in range(50): z.writestr(f"f{i}", b"x%d" % i * 1000)
with zipfile.ZipFile("a.zip", "a") as z: z.writestr("late", b"appended")
with zipfile.ZipFile("a.zip") as z:
    assert z.testzip() is None
    assert z.read("f7") == b"x7" * 1000 and z.read("late") == b"appended"
EOF`)
	})
	step("go build", func() {
		m.sh("main", `
			mkdir hello; cd hello
			printf 'module example.test/hello\n\ngo 1.21\n' > go.mod
			printf 'package main\n\nfunc main() { println("built in the mount") }\n' > main.go
			go build -o hello .
			test "$(./hello 2>&1)" = "built in the mount"`)
	})

	step("remount", func() {
		list := `find . -not -path './.git/*' -printf '%P %y %m %U %G %s %l\n' | grep -v '^ ' | sort; find . -type f -printf '%P %T@\n' | sort; find . -type f -exec md5sum {} + | sort`
		before := m.sh("main", list)
		m.umount()
		m.start("s3://" + bucket)
		if after := m.sh("main", list); after != before {
			h.t.Fatalf("the tree differs after a remount:\n%s", firstDifference(before, after))
		}
		m.sh("main", `cd repo && git fsck --strict && test -z "$(git status --porcelain)"; cd ..; test "$(sqlite3 db.sqlite 'pragma integrity_check')" = ok`)
	})
	step("from outside", func() {
		srv.Put(h.t, bucket, "other/from/outside.txt", []byte("written by another tool"))
		srv.Put(h.t, bucket, "readme.txt", []byte("outside every branch"))
		m.sh(".", `
			test "$(cat other/from/outside.txt)" = "written by another tool"
			test "$(cat readme.txt)" = "outside every branch"
			test "$(ls other)" = from
			! touch newfile 2>/dev/null
			echo changed > other/from/outside.txt`)
		if got := srv.Get(h.t, bucket, "other/from/outside.txt"); string(got) != "changed\n" {
			h.t.Fatalf("in the bucket: %q", got)
		}
	})
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return "- " + x[i] + "\n+ " + y[i]
		}
	}
	return "one is longer"
}
