package cache

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
)

// million is a bucket in memory with as many objects in main/d as a number has
// with six digits. These take no memory, so that what is measured is what lists
// them.
type million struct{ backend.Backend }

const millionPrefix = "main/d/"

func (b million) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	after := max(opts.After, opts.Token)
	if !strings.HasPrefix(opts.Prefix, millionPrefix) {
		return b.Backend.ListPage(ctx, opts)
	}
	limit, from := 1000, 0
	if opts.Limit > 0 {
		limit = min(limit, opts.Limit)
	}
	if name, ok := strings.CutPrefix(after, millionPrefix); ok {
		_, err := fmt.Sscan("1"+name[:6], &from)
		if err != nil {
			return backend.Page{}, err
		}
		from -= 1_000_000 - 1
	}
	page := backend.Page{Date: time.Now()}
	for i := from; i < min(from+limit, 1_000_000); i++ {
		page.Objects = append(page.Objects, backend.Info{
			Key: fmt.Sprintf("%s%06d", millionPrefix, i), Size: int64(i), ETag: fmt.Sprintf("%032x", i), ModTime: page.Date,
		})
	}
	if n := len(page.Objects); n > 0 && from+n < 1_000_000 {
		page.Next = page.Objects[n-1].Key
	}
	return page, nil
}

// liveHeap is how many bytes of objects are live.
func liveHeap() uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestAMillionFilesAreListedInFlatMemory(t *testing.T) {
	faults := fault.New()
	faults.Quiet(overlay.IsRefCheck)
	raw := mem.New(t.Name(), mem.Options{})
	_, err := raw.Put(t.Context(), millionPrefix+"000000", backend.Bytes(nil), backend.PutOptions{})
	ok(t, err)
	s, err := store.Open(t.Context(), faults.Wrap(million{raw}), store.Options{Host: "here"})
	ok(t, err)
	c, err := Open(t.Context(), s, Options{Dir: t.TempDir(), MetadataTTL: time.Hour})
	ok(t, err)
	defer c.Close(t.Context())
	tree, err := c.Branch(t.Context(), "main")
	ok(t, err)

	const bound = 64 << 20 // a million names that are kept take more than 300
	faults.ResetRequests()
	before, peak, n := liveHeap(), uint64(0), 0
	for e, err := range tree.List(t.Context(), path(t, "d")) {
		ok(t, err)
		if n == 0 && faults.Count("list") > 1 {
			t.Errorf("the first entry took %q", faults.Requests())
		}
		if e.Size != int64(n) {
			t.Fatalf("%s where %d belongs", e.Name, n)
		}
		if n++; n%100_000 == 0 {
			peak = max(peak, liveHeap()-min(before, liveHeap()))
		}
	}
	if n != 1_000_000 {
		t.Errorf("%d entries", n)
	}
	if peak > bound {
		t.Errorf("%d MiB while they are listed, want %d at most", peak>>20, bound>>20)
	}
	t.Logf("%d MiB at most, %d listings", peak>>20, faults.Count("list"))
}
