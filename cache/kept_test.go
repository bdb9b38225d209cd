package cache

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// secondsBucket has its times in whole seconds and ETags of the content, as S3.
func secondsBucket(t testing.TB) *bucket {
	b := newBucket(t)
	b.raw = mem.New(t.Name(), mem.Options{Seconds: true})
	b.opts.Attrs = store.AttrsAuto
	return b
}

const keptFiles = 2 * fewKept

// lookAtAll lists a directory and looks every name in it up, as ls -l does.
func lookAtAll(t testing.TB, tree store.Tree, dir string) map[string]store.Entry {
	t.Helper()
	all := map[string]store.Entry{}
	for e, err := range tree.List(t.Context(), path(t, dir)) {
		ok(t, err)
		e, err = tree.Lookup(t.Context(), path(t, strings.TrimPrefix(dir+"/"+e.Name, "/")))
		ok(t, err)
		all[e.Name] = e
	}
	return all
}

func noStat(t testing.TB, got []string) {
	t.Helper()
	for _, r := range got {
		if strings.HasPrefix(r, "STAT main/") {
			t.Errorf("asked for attributes: %q", got)
			return
		}
	}
}

// isOld is longer than an object is new.
const isOld = 10 * time.Second

// What a mount asked about, the next one knows from a listing alone.
func TestAttributesAreKnownAfterARemount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := secondsBucket(t)
		dir := t.TempDir()
		c, tree := b.open(Options{Dir: dir})
		_, err := tree.Mkdir(t.Context(), path(t, "d"), store.Attr{Mode: store.ModeDir | 0o700})
		ok(t, err)
		for i := range keptFiles {
			f, err := tree.Create(t.Context(), path(t, fmt.Sprintf("d/f%02d", i)), store.Attr{Mode: store.ModeRegular | 0o640}, false)
			ok(t, err)
			write(t, f, 0, "x")
			at := time.Unix(int64(i), 5)
			_, err = f.SetAttr(t.Context(), store.AttrChange{Mtime: &at})
			ok(t, err)
			closeFile(t, f)
		}
		time.Sleep(isOld)
		lookAtAll(t, tree, "d")
		ok(t, c.Close(t.Context()))

		for range 2 {
			c, tree = b.open(Options{Dir: dir})
			var all map[string]store.Entry
			noStat(t, b.requests(func() { all = lookAtAll(t, tree, "d") }))
			for i := range keptFiles {
				if e := all[fmt.Sprintf("f%02d", i)]; e.Mode != store.ModeRegular|0o640 || !e.Mtime.Equal(time.Unix(int64(i), 5)) || e.Size != 1 {
					t.Fatalf("%d: %+v", i, e)
				}
			}
			ok(t, c.Close(t.Context()))
		}
	})
}

// Somebody else's change of attributes is seen by the next listing, however
// soon after this mount's own publication it was made, and after a remount too.
func TestAChangeOfAttributesByAnotherHostIsNeverMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := secondsBucket(t)
		other, theirs := b.open(Options{})
		defer other.Close(context.Background())
		dir := t.TempDir()
		c, tree := b.open(Options{Dir: dir})
		for i := range keptFiles {
			f := create(t, tree, fmt.Sprintf("f%02d", i), false)
			closeFile(t, f)
		}
		// At once, in every way that leaves what a listing tells as it was.
		mode := uint32(0o600)
		_, err := theirs.SetAttr(t.Context(), path(t, "f00"), store.AttrChange{Mode: &mode})
		ok(t, err)
		f, err := theirs.Open(t.Context(), path(t, "f01"), store.OpenFlags{Write: true, Truncate: true})
		ok(t, err)
		_, err = f.SetAttr(t.Context(), store.AttrChange{Mode: &mode})
		ok(t, err)
		closeFile(t, f)
		f, err = theirs.Create(t.Context(), path(t, "stamp"), store.Attr{Mode: store.ModeRegular | mode}, false)
		ok(t, err)
		closeFile(t, f)
		ok(t, theirs.Rename(t.Context(), path(t, "stamp"), path(t, "f02"), store.Replace))
		for range 3 {
			time.Sleep(10 * time.Second)
			for range tree.List(t.Context(), store.Path{}) {
			}
			for _, name := range []string{"f00", "f01", "f02"} {
				if e, err := tree.Lookup(t.Context(), path(t, name)); err != nil || e.Mode != store.ModeRegular|mode {
					t.Errorf("%s: mode %o, %v", name, e.Mode, err)
				}
			}
			ok(t, c.Close(t.Context()))
			c, tree = b.open(Options{Dir: dir})
		}
		ok(t, c.Close(t.Context()))
	})
}

// What a mount asked about within the second in which the object was stored
// may change without a trace, and is asked for again.
func TestAttributesThatWereToldTooSoonAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := secondsBucket(t)
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1100 * time.Millisecond)))
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		_, err := b.raw.Put(t.Context(), ".kei/attributes/main", backend.Bytes([]byte("{}")), backend.PutOptions{})
		ok(t, err)
		set := func(mode string) {
			_, err := b.raw.Put(t.Context(), "main/f", backend.Bytes([]byte("x")), backend.PutOptions{Metadata: map[string]string{"mode": mode}})
			ok(t, err)
		}
		look := func(want uint32) {
			for range tree.List(t.Context(), store.Path{}) {
			}
			if e, err := tree.Lookup(t.Context(), path(t, "f")); err != nil || e.Mode&0o777 != want {
				t.Errorf("mode %o, %v; want %o", e.Mode, err, want)
			}
		}
		set("33152") // 0600
		look(0o600)
		time.Sleep(100 * time.Millisecond)
		set("33188") // 0644, in the same second
		time.Sleep(10 * time.Second)
		look(0o644)
		time.Sleep(10 * time.Second)
		noStat(t, b.requests(func() { look(0o644) }))
	})
}

// A refresh forgets what is on the disk too, of branches that nobody has looked
// at since the mount as well, and what a listing takes from there meanwhile.
func TestARefreshForgetsTheAttributesOnTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := secondsBucket(t)
		dir := t.TempDir()
		c, tree := b.open(Options{Dir: dir})
		for i := range keptFiles {
			closeFile(t, create(t, tree, fmt.Sprintf("f%02d", i), false))
		}
		time.Sleep(isOld)
		lookAtAll(t, tree, "")
		for _, branch := range []string{"main", ""} {
			ok(t, c.Close(t.Context()))
			c, tree = b.open(Options{Dir: dir})
			c.Refresh(branch, store.Path{})
			got := b.requests(func() { lookAtAll(t, tree, "") })
			if len(got) < keptFiles {
				t.Errorf("after a refresh of %q: %q", branch, got)
			}
		}

		ok(t, c.Close(t.Context()))
		c, _ = b.open(Options{Dir: dir})
		k, p := c.meta.kept, path(t, "f00")
		listed := store.Entry{Name: "f00", Partial: true, Attr: store.Attr{Mode: store.ModeRegular}}
		k.shelf.Read(func(get func([]byte) ([]byte, bool)) {
			value, _ := get([]byte(keptKey("main", p)))
			known, err := store.EntryFrom("f00", value)
			ok(t, err)
			listed.Version, listed.Size, listed.Changed = known.Version, known.Size, known.Changed
			value = known.AppendBytes(nil)
			k.completeOne(&listed, []byte(keptKey("main", p)), k.drops, func([]byte) ([]byte, bool) {
				ok(t, k.drop("", store.Path{}))
				return value, true
			})
		})
		if listed.Partial || len(k.recent) > 0 {
			t.Errorf("%+v: %d that are forgotten go to the disk", listed, len(k.recent))
		}
		ok(t, c.Close(t.Context()))
	})
}

func TestAttributesOfAnotherBucketOrOwnerAreNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := secondsBucket(t)
		c, tree := b.open(Options{Dir: dir})
		for i := range keptFiles {
			closeFile(t, create(t, tree, fmt.Sprintf("f%02d", i), false))
		}
		time.Sleep(isOld)
		lookAtAll(t, tree, "")
		ok(t, c.Close(t.Context()))
		if _, err := os.Stat(filepath.Join(dir, "attributes")); err != nil {
			t.Fatal(err)
		}
		b.opts.FileMode, b.opts.UID = 0o600, 7
		c, tree = b.open(Options{Dir: dir})
		defer c.Close(context.Background())
		for range tree.List(t.Context(), store.Path{}) {
		}
		e, err := tree.Lookup(t.Context(), path(t, "f00"))
		if err != nil || e.UID != 7 {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// Names that are looked up one after another, and never listed, cost a listing
// of their directory, not a question each.
func TestLookupsInADirectoryAreAnsweredByItsListing(t *testing.T) {
	b := newBucket(t)
	b.opts.Attrs = store.AttrsAuto
	for i := range 300 {
		b.put(fmt.Sprintf("main/d/f%03d", i), "x")
	}
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	got := b.requests(func() {
		for i := range 300 {
			_, err := tree.Lookup(t.Context(), path(t, fmt.Sprintf("d/f%03d", i)))
			ok(t, err)
			missing(t, tree, fmt.Sprintf("d/f%03d.gone", i))
		}
	})
	if len(got) > 5 {
		t.Errorf("%d requests: %q", len(got), got)
	}
}

// A listing may lag behind on some stores: there it does not answer for names.
func TestAListingThatMayLagAnswersNoLookup(t *testing.T) {
	b := newBucket(t)
	b.raw = mem.New(t.Name(), mem.Options{Caps: func(c *backend.Caps) { c.StrongList = false }})
	b.opts.Attrs = store.AttrsAuto
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	for i := range 5 {
		b.put(fmt.Sprintf("main/d/f%d", i), "x")
	}
	got := b.requests(func() {
		for i := range 5 {
			_, err := tree.Lookup(t.Context(), path(t, fmt.Sprintf("d/f%d", i)))
			ok(t, err)
		}
	})
	if len(got) != 10 {
		t.Errorf("%q", got)
	}
}

// Where a listing does not tell the attributes, those of the files behind the
// one that is looked at are asked for at the same time.
func TestAttributesOfSiblingsAreAskedForAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		const n = 200
		for i := range n {
			b.put(fmt.Sprintf("main/d/f%03d", i), "x")
		}
		c, tree := b.open(Options{MetadataTTL: time.Hour})
		defer c.Close(context.Background())
		const lag = 20 * time.Millisecond
		b.faults.Add(fault.Rule{Op: "read", Times: fault.Always, Delay: lag})
		start := time.Now()
		got := b.requests(func() { lookAtAll(t, tree, "d") })
		if took := time.Since(start); took > 40*lag {
			t.Errorf("%v for %d files", took, n)
		}
		if len(got) != n+1 {
			t.Errorf("%d requests for %d files and a listing", len(got), n)
		}
	})
}
