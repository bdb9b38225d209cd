package s3_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/test/minio"
)

// onMinIO are the options of a new bucket there.
func onMinIO(t *testing.T) s3.Options {
	t.Helper()
	srv := minio.Shared(t)
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", srv.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", srv.SecretKey)
	return s3.Options{Bucket: srv.MakeBucket(t), Endpoint: srv.Endpoint}
}

// TestConformanceOfMinIO leaves out what that server is known not to do; the
// tests below show it.
func TestConformanceOfMinIO(t *testing.T) {
	opts := onMinIO(t)
	opts.Prefix = "some/prefix with+odd%41 ü"
	opts.Caps = func(c *backend.Caps) {
		c.CondDelete, c.CondBatch, c.CondCopy, c.ObjectPrefix = false, false, false, false
		c.MaxMetadata = 1900 // it counts more than names and values
	}
	backendtest.Run(t, func(t *testing.T) backend.Backend { return open(t, opts) }, "FolderMarkers", "ObjectAndPrefix")
}

func putText(t *testing.T, b backend.Backend, key, data string) backend.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, backend.Bytes([]byte(data)), backend.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestMinIOIgnoresTheConditionsOfDeletesAndCopies: both succeed with an ETag
// of long ago, which is why keifs probes a bucket.
func TestMinIOIgnoresTheConditionsOfDeletesAndCopies(t *testing.T) {
	b := open(t, onMinIO(t))
	defer b.Close()
	old := putText(t, b, "a", "one")
	putText(t, b, "a", "two")
	putText(t, b, "b", "other")
	copier, _ := backend.As[backend.Copier](b)
	if _, err := copier.Copy(t.Context(), "b", "a", backend.CopyOptions{Cond: backend.Cond{IfMatch: old.ETag}}); err != nil {
		t.Errorf("it heeds the condition of a copy: %v", err)
	}
	if err := b.Delete(t.Context(), "a", backend.Cond{IfMatch: old.ETag}); err != nil {
		t.Errorf("it heeds the condition of a deletion: %v", err)
	}
	if _, err := b.Stat(t.Context(), "a"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("not deleted: %v", err)
	}
}

// TestMinIOListsNoChildOfAnObject: it takes "a" and "a/b", and then shows only
// the first.
func TestMinIOListsNoChildOfAnObject(t *testing.T) {
	b := open(t, onMinIO(t))
	defer b.Close()
	putText(t, b, "a", "object")
	putText(t, b, "a/b", "child")
	page, err := b.ListPage(t.Context(), backend.ListOptions{})
	if err != nil || len(page.Objects) != 1 || page.Objects[0].Key != "a" {
		t.Errorf("%+v, %v", page, err)
	}
	if data, _, err := backend.ReadAll(t.Context(), b, "a/b", 100); err != nil || string(data) != "child" {
		t.Errorf("%q, %v", data, err)
	}
}

// TestMinIOEndsAListingOfOneKeyAtAMarker: a page of one entry that is a folder's
// marker says that nothing follows. Pages of two and more are right, and a
// directory is never looked at by less.
func TestMinIOEndsAListingOfOneKeyAtAMarker(t *testing.T) {
	b := open(t, onMinIO(t))
	defer b.Close()
	putText(t, b, "dir/", "")
	putText(t, b, "dir/a", "1")
	putText(t, b, "dir/b", "2")
	for limit, want := range map[int][]string{1: {"dir/"}, 2: {"dir/", "dir/a", "dir/b"}, 1000: {"dir/", "dir/a", "dir/b"}} {
		var got []string
		for opts := (backend.ListOptions{Prefix: "dir/", Delimited: true, Limit: limit}); ; {
			page, err := b.ListPage(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Objects {
				got = append(got, o.Key)
			}
			if opts.Token = page.Next; opts.Token == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %q, want %q", limit, got, want)
		}
	}
}
