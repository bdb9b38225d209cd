package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keifs/keifs/test/azurite"
	"github.com/keifs/keifs/test/bunnystub"
	"github.com/keifs/keifs/test/fakegcs"
	"github.com/keifs/keifs/test/minio"
)

// otherStore is a store beside the one that the scripted session runs on.
type otherStore struct {
	url string
	env []string // credentials and the like
	get func(t testing.TB, key string) []byte
	put func(t testing.TB, key string, data []byte)

	plain bool     // it keeps whole files and nothing else: no attributes, no conditions
	can   []string // what "keifs probe" finds of powers; it finds no other
}

// everything is what a store can do whose conditions all hold.
var everything = []string{
	"conditional create", "conditional overwrite", "conditional delete", "conditional deletes in batches", "conditional copy",
	"conditional multipart completion", "server-side copy", "user metadata", "consistent listings", "object and prefix of one name",
}

// otherStores is a row a store.
var otherStores = map[string]func(t testing.TB) otherStore{
	"minio": func(t testing.TB) otherStore {
		srv := minio.Shared(t)
		bucket := srv.MakeBucket(t)
		return otherStore{
			url: "s3://" + bucket,
			env: []string{"KEIFS_ENDPOINT=" + srv.Endpoint, "AWS_ACCESS_KEY_ID=" + srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey, "AWS_REGION=" + srv.Region},
			get: func(t testing.TB, key string) []byte { return srv.Get(t, bucket, key) },
			put: func(t testing.TB, key string, data []byte) { srv.Put(t, bucket, key, data) },
			can: []string{
				"conditional create", "conditional overwrite", "conditional multipart completion", "server-side copy", "user metadata", "consistent listings",
			},
		}
	},
	"gs": func(t testing.TB) otherStore {
		srv := fakegcs.Shared(t)
		bucket := srv.NewBucket(t)
		return otherStore{
			url: "gs://" + bucket,
			env: []string{"STORAGE_EMULATOR_HOST=" + srv.Endpoint},
			get: func(t testing.TB, key string) []byte { return srv.Get(t, bucket, key) },
			put: func(t testing.TB, key string, data []byte) { srv.Put(t, bucket, key, data) },
			can: everything,
		}
	},
	"bunny": func(t testing.TB) otherStore {
		srv := bunnystub.Start(t)
		return otherStore{
			url:   "bunny://" + srv.Zone,
			env:   []string{"KEIFS_ENDPOINT=" + srv.Endpoint, "BUNNY_STORAGE_KEY=" + srv.Key},
			get:   func(t testing.TB, key string) []byte { return []byte(srv.Get("/" + key)) },
			put:   func(t testing.TB, key string, data []byte) { srv.Put("/"+key, string(data)) },
			plain: true,
		}
	},
	"az": func(t testing.TB) otherStore {
		srv := azurite.Shared(t)
		name := srv.NewContainer(t)
		return otherStore{
			url: "az://" + name,
			env: []string{"KEIFS_ENDPOINT=" + srv.Endpoint, "AZURE_STORAGE_KEY=" + azurite.Key},
			get: func(t testing.TB, key string) []byte {
				data, _ := srv.Get(t, name, key)
				return data
			},
			put: func(t testing.TB, key string, data []byte) { srv.Put(t, name, key, data, nil) },
			can: everything,
		}
	},
}

// TestSessionOnOtherStores: plain programs work in a mount of each other store, a new
// mount finds what they did, and so does another tool; and the other way round. A
// store that keeps no attributes refuses them, and its mount says what it lacks.
func TestSessionOnOtherStores(t *testing.T) {
	needPrograms(t)
	for name, start := range otherStores {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			untar, attributes := "xf", `
				chmod 750 papers/a.txt; touch -d '2001-02-03 04:05:06.789' papers/a.txt; ln -s ../a.txt papers/deep/link`
			if s.plain {
				untar, attributes = "xmf", ` # tar is not to set times
				refuses() { said=$("$@" 2>&1) && return 1; test "${said/not supported/}" != "$said"; }
				refuses chmod 750 papers/a.txt
				refuses touch -d '2001-02-03 04:05:06.789' papers/a.txt
				refuses ln -s ../a.txt papers/deep/link`
			}
			h := newHost(t, s.env...)
			logFile := filepath.Join(h.dir, "first.log")
			m := h.mount(s.url, "--log-file", logFile)
			m.sh(".", `mkdir main; test "$(ls)" = main`)
			m.sh("main", `
				mkdir -p docs/deep/er
				printf 'one\ntwo\n' > docs/a.txt
				cp docs/a.txt docs/b.txt; cmp docs/a.txt docs/b.txt
				sed -i s/two/three/ docs/b.txt
				echo four >> docs/b.txt
				mv docs/b.txt docs/deep/er/c.txt; test ! -e docs/b.txt
				head -c 20000000 /dev/urandom > big; cp big big2; cmp big big2
				printf changed | dd of=big2 bs=1 seek=1000000 conv=notrunc status=none
				! cmp -s big big2; rm big2; test ! -e big2
				mv docs papers; test -f papers/deep/er/c.txt; test ! -e docs
				mkdir tree; for i in $(seq 20); do mkdir -p tree/d$((i%4)); head -c $((i*997)) /dev/urandom > tree/d$((i%4))/f$i; done
				tar cf t.tar tree; mkdir out; tar `+untar+` t.tar -C out; diff -r tree out/tree
				rm -r out; test ! -e out
				sqlite3 db.sqlite "create table t(a integer primary key, b text); with recursive n(i) as (select 1 union all select i+1 from n where i<500) insert into t select i, hex(randomblob(20)) from n;"
				sqlite3 db.sqlite "update t set b=b||'x' where a%2=0"
				test "$(sqlite3 db.sqlite 'pragma integrity_check')" = ok`)
			list := `find . -type f -printf '%P %s\n' | sort; find . -type f -exec md5sum {} + | sort`
			m.sh("main", attributes+`
				mkdir repo; cd repo; git init -q -b trunk .; cp -r ../tree .; git add .; git commit -qm one; git fsck --strict`)
			list += `; find . -path ./repo -prune -o -printf '%P %y %m %l\n' | sort; stat -c %y papers/a.txt`
			before := m.sh("main", list)
			if got := string(s.get(t, "main/papers/deep/er/c.txt")); got != "one\nthree\nfour\n" {
				t.Errorf("in the store: %q", got)
			}
			big, err := os.ReadFile(m.path("main/big"))
			if err != nil || !bytes.Equal(s.get(t, "main/big"), big) {
				t.Errorf("big differs in the store; %v", err)
			}

			m.umount()
			log, err := os.ReadFile(logFile)
			if err != nil {
				t.Error(err)
			}
			if n := strings.Count(string(log), "this store lacks conditions: "); n > 1 || (n == 1) != s.plain {
				t.Errorf("the mount says %d times that one host at a time may write:\n%s", n, log)
			}
			s.put(t, "other/from/outside.txt", []byte("written by another tool"))
			m.start(s.url)
			if after := m.sh("main", list); after != before {
				t.Errorf("the tree differs after a remount:\n%s", firstDifference(before, after))
			}
			m.sh(".", `
				test "$(cat other/from/outside.txt)" = "written by another tool"
				test "$(ls other)" = from
				echo changed > other/from/outside.txt`)
			if got := string(s.get(t, "other/from/outside.txt")); got != "changed\n" {
				t.Errorf("in the store: %q", got)
			}
			checkProbe(t, h.run(keifs, "probe", s.url), s.can)
		})
	}
}

// checkProbe checks that "keifs probe" finds these powers and no other.
func checkProbe(t *testing.T, out string, can []string) {
	t.Helper()
	var found []string
	asked := 0
	for line := range strings.Lines(out) {
		power, says, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if says = strings.TrimSpace(says); ok && says == "yes" {
			found = append(found, power)
		}
		if ok && (says == "yes" || says == "no" || strings.HasPrefix(says, "no: ")) {
			asked++
		}
	}
	if !slices.Equal(found, can) || asked != len(everything)+1 { // and versions
		t.Errorf("probe finds %q, want %q:\n%s", found, can, out)
	}
}
