package versitygw_test

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keifs/keifs/test/versitygw"
)

func TestObjectsComeBackAndLieInTheDirectory(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	meta := map[string]string{"mode": "33188", "mtime": "12.000000034"}
	etag := srv.PutMetadata(t, bucket, "main/a b/c", []byte("hello"), meta)

	if got := string(srv.Get(t, bucket, "main/a b/c")); got != "hello" {
		t.Errorf("got %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(srv.Dir, bucket, "main/a b/c")); err != nil || string(data) != "hello" {
		t.Errorf("on disk: %q, %v", data, err)
	}
	o := srv.Head(t, bucket, "main/a b/c")
	if o.Size != 5 || o.ETag != etag || !maps.Equal(o.Metadata, meta) || o.ModTime.IsZero() {
		t.Errorf("head: %+v, etag %s", o, etag)
	}
	srv.Put(t, bucket, "main/b", nil)
	if got := srv.List(t, bucket, "main/"); !slices.Equal(got, []string{"main/a b/c", "main/b"}) {
		t.Errorf("list: %q", got)
	}
	srv.Delete(t, bucket, "main/b")
	if _, found := srv.TryGet(t, bucket, "main/b"); found {
		t.Error("deleted, but there")
	}
}

func TestVersionedBucketKeepsVersions(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	srv.Put(t, bucket, "plain", []byte("one"))
	if o := srv.Head(t, bucket, "plain"); o.VersionID != "" && o.VersionID != "null" {
		t.Errorf("version %q in a bucket that keeps none", o.VersionID)
	}
	srv.EnableVersioning(t, bucket)
	srv.Put(t, bucket, "a", []byte("one"))
	first := srv.Head(t, bucket, "a").VersionID
	srv.Put(t, bucket, "a", []byte("two"))
	if second := srv.Head(t, bucket, "a").VersionID; first == "" || first == second {
		t.Errorf("versions %q and %q", first, second)
	}
}

func TestServerEndsWithItsTest(t *testing.T) {
	var dir, endpoint string
	t.Run("test", func(t *testing.T) {
		srv := versitygw.Start(t)
		if srv == versitygw.Shared(t) {
			t.Error("not a server of its own")
		}
		srv.Put(t, srv.NewBucket(t), "a", []byte("1"))
		dir, endpoint = srv.Dir, srv.Endpoint
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory: %v", err)
	}
	if conn, err := net.Dial("tcp", endpoint[len("http://"):]); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}
