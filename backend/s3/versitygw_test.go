package s3_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/test/minio"
	"github.com/keifs/keifs/test/versitygw"
)

// onServer opens a new bucket of the real server.
func onServer(t *testing.T, opts s3.Options) (backend.Backend, *versitygw.Server, string) {
	t.Helper()
	srv := versitygw.Shared(t)
	credentials(t, srv)
	opts.Bucket, opts.Endpoint = srv.NewBucket(t), srv.Endpoint
	b := open(t, opts)
	t.Cleanup(func() { b.Close() })
	return b, srv, opts.Bucket
}

func TestOtherToolsReadWhatIsWritten(t *testing.T) {
	b, srv, bucket := onServer(t, s3.Options{Prefix: "some/prefix"})
	meta := map[string]string{"mode": "33188", "mtime": "1700000000.5"}
	if _, err := b.Put(t.Context(), "dir/a b", backend.Bytes([]byte("hello")), backend.PutOptions{Metadata: meta, ContentType: "text/plain"}); err != nil {
		t.Fatal(err)
	}
	if got := string(srv.Get(t, bucket, "some/prefix/dir/a b")); got != "hello" {
		t.Errorf("another client reads %q", got)
	}
	if o := srv.Head(t, bucket, "some/prefix/dir/a b"); !maps.Equal(o.Metadata, meta) || o.ContentType != "text/plain" {
		t.Errorf("another client sees %+v", o)
	}
	srv.PutMetadata(t, bucket, "some/prefix/from outside", []byte("theirs"), map[string]string{"Their-Name": "theirs"})
	data, info, err := get(b, t, "from outside", backend.GetOptions{})
	if err != nil || data != "theirs" || info.Metadata["their-name"] != "theirs" {
		t.Errorf("%q, %+v, %v", data, info, err)
	}
	srv.Put(t, bucket, "elsewhere", nil)
	page, err := b.ListPage(t.Context(), backend.ListOptions{})
	if err != nil || len(page.Objects) != 2 {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestConditionalDeleteOnARealServer(t *testing.T) {
	b, srv, bucket := onServer(t, s3.Options{})
	old, now := srv.Put(t, bucket, "a", []byte("one")), srv.Put(t, bucket, "a", []byte("two"))
	if err := b.Delete(t.Context(), "a", backend.Cond{IfMatch: old}); !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("a stale ETag: %v", err)
	}
	if got := string(srv.Get(t, bucket, "a")); got != "two" {
		t.Errorf("left is %q", got)
	}
	if err := b.Delete(t.Context(), "a", backend.Cond{IfMatch: now}); err != nil {
		t.Error(err)
	}
	if _, found := srv.TryGet(t, bucket, "a"); found {
		t.Error("it is still there")
	}
}

// An upload whose connection breaks must not leave half an object, nor
// replace a whole one: this server takes what came for all there is, unless
// the signature covers the body.
func TestCutUploadStoresNothing(t *testing.T) {
	transport := httpio.NewTransport()
	var limit atomic.Int64 // of bytes that one connection sends; 0 is none
	var dialer net.Dialer
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		return &cutConn{Conn: conn, limit: &limit}, err
	}
	b, srv, bucket := onServer(t, s3.Options{Transport: transport})
	srv.Put(t, bucket, "old", []byte("old"))
	data := bytes.Repeat([]byte("new!"), 1<<18)
	for _, after := range []int64{2_000, 100_000, 1 << 20} {
		limit.Store(after)
		for _, key := range []string{"old", "new"} {
			transport.CloseIdleConnections()
			_, err := b.Put(t.Context(), key, backend.Bytes(data), backend.PutOptions{})
			if !errors.Is(err, backend.ErrTransient) {
				t.Errorf("put cut after %d bytes: %v", after, err)
			}
		}
	}
	limit.Store(0)
	// The server may still be busy with what it got: it says something when
	// it is through, and another request of the same keys waits for that.
	if got := string(srv.Get(t, bucket, "old")); got != "old" {
		t.Errorf("old holds %d bytes", len(got))
	}
	if got, found := srv.TryGet(t, bucket, "new"); found {
		t.Errorf("new holds %d bytes", len(got))
	}
	if _, err := b.Put(t.Context(), "new", backend.Bytes(data), backend.PutOptions{}); err != nil {
		t.Error(err)
	}
	if got := srv.Get(t, bucket, "new"); !bytes.Equal(got, data) {
		t.Errorf("new holds %d bytes", len(got))
	}
}

// cutConn breaks once it has sent so many bytes.
type cutConn struct {
	net.Conn
	limit *atomic.Int64
	sent  int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	limit := c.limit.Load()
	if limit == 0 || c.sent+int64(len(p)) <= limit {
		n, err := c.Conn.Write(p)
		c.sent += int64(n)
		return n, err
	}
	n, _ := c.Conn.Write(p[:max(0, limit-c.sent)])
	c.sent += int64(n)
	c.Conn.Close()
	return n, net.ErrClosed
}

func TestCopyKeepsTheHeadersOfOtherTools(t *testing.T) {
	b, srv, bucket := onServer(t, s3.Options{})
	key := "page.html"
	_, err := srv.Client().PutObject(t.Context(), &awss3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader([]byte("<p>")), ContentType: aws.String("text/html"),
		CacheControl: aws.String("max-age=60"), ContentEncoding: aws.String("identity"), ContentLanguage: aws.String("de"),
		ContentDisposition: aws.String("inline"), Metadata: map[string]string{"old": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := backend.As[backend.Copier](b)
	info, err := c.Copy(t.Context(), key, key, backend.CopyOptions{Metadata: map[string]string{"mode": "33188"}})
	if err != nil || info.Size != 3 || info.ContentType != "text/html" {
		t.Fatalf("%+v, %v", info, err)
	}
	o, err := srv.Client().HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{*o.ContentType, aws.ToString(o.CacheControl), aws.ToString(o.ContentLanguage), aws.ToString(o.ContentDisposition)}
	if want := []string{"text/html", "max-age=60", "de", "inline"}; !slices.Equal(got, want) || !maps.Equal(o.Metadata, map[string]string{"mode": "33188"}) {
		t.Errorf("%q with %q, want %q", got, o.Metadata, want)
	}
}

func TestVersionedBucket(t *testing.T) {
	srv := versitygw.Shared(t)
	credentials(t, srv)
	bucket := srv.NewBucket(t)
	srv.EnableVersioning(t, bucket)
	b := open(t, s3.Options{Bucket: bucket, Endpoint: srv.Endpoint, Prefix: "p"})
	defer b.Close()
	if !b.Caps().Versions {
		t.Fatal("the bucket keeps versions, and the backend does not know it")
	}
	v, _ := backend.As[backend.Versioner](b)
	var ids []string
	for _, data := range []string{"one", "two", "three"} {
		info, err := b.Put(t.Context(), "a", backend.Bytes([]byte(data)), backend.PutOptions{})
		if err != nil || info.VersionID == "" {
			t.Fatalf("%+v, %v", info, err)
		}
		ids = append(ids, info.VersionID)
	}
	if _, err := b.Put(t.Context(), "b", backend.Bytes(nil), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "a", backend.Cond{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stat(t.Context(), "a"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("deleted, but %v", err)
	}
	for i, want := range []string{"one", "two", "three"} {
		data, info, err := get(b, t, "a", backend.GetOptions{VersionID: ids[i]})
		if err != nil || data != want || info.VersionID != ids[i] {
			t.Errorf("version %s: %q, %+v, %v", ids[i], data, info, err)
		}
	}
	if _, _, err := get(b, t, "a", backend.GetOptions{VersionID: "01ARZ3NDEKTSV4RRFFQ69G5FAV"}); kind(t, err) != backend.ErrNotExist {
		t.Errorf("a version that never was: %v", err)
	}
	// Not 1: a page of this server that ends with a deletion is followed by itself.
	for _, limit := range []int{0, 2, 3} {
		var got []string
		for opts := (backend.ListOptions{Limit: limit}); ; {
			page, err := v.VersionsPage(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Versions {
				s := e.Key
				switch i := slices.Index(ids, e.VersionID); {
				case e.Deleted:
					s += " deleted"
				case i >= 0:
					s += []string{" one", " two", " three"}[i]
				}
				if e.Latest {
					s += " latest"
				}
				got = append(got, s)
			}
			if opts.Token = page.Next; opts.Token == "" || len(got) > 20 {
				break
			}
		}
		if want := []string{"a deleted latest", "a three", "a two", "a one", "b latest"}; !slices.Equal(got, want) {
			t.Errorf("pages of %d: %q, want %q", limit, got, want)
		}
	}
}

func TestUnversionedBucketHasNoVersions(t *testing.T) {
	b, _, _ := onServer(t, s3.Options{})
	if b.Caps().Versions {
		t.Error("Caps tells of versions")
	}
	info, err := b.Put(t.Context(), "a", backend.Bytes(nil), backend.PutOptions{})
	if err != nil || info.VersionID != "" {
		t.Errorf("%+v, %v", info, err)
	}
	v, _ := backend.As[backend.Versioner](b)
	if _, err := v.VersionsPage(t.Context(), backend.ListOptions{}); kind(t, err) != backend.ErrUnsupported {
		t.Error(err)
	}
}

// TestVersionsAreCopiedAndPassedOverOnRealServers: what an object was is
// copied on the server, and a listing of versions begins behind a key.
func TestVersionsAreCopiedAndPassedOverOnRealServers(t *testing.T) {
	gateway, other := versitygw.Shared(t), minio.Shared(t)
	for name, opts := range map[string]func(t *testing.T) s3.Options{
		"versitygw": func(t *testing.T) s3.Options {
			credentials(t, gateway)
			bucket := gateway.NewBucket(t)
			gateway.EnableVersioning(t, bucket)
			return s3.Options{Bucket: bucket, Endpoint: gateway.Endpoint, Prefix: "p"}
		},
		"minio": func(t *testing.T) s3.Options {
			opts := onMinIO(t)
			other.EnableVersioning(t, opts.Bucket)
			return opts
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, opts(t))
			defer b.Close()
			if !b.Caps().Versions {
				t.Fatal("Caps tells of no versions")
			}
			old := putText(t, b, "d/a b+c", "one")
			putText(t, b, "d/a b+c", "two")
			if err := b.Delete(t.Context(), "d/a b+c", backend.Cond{}); err != nil {
				t.Fatal(err)
			}
			putText(t, b, "d/b", "")
			putText(t, b, "e", "")
			copier, _ := backend.As[backend.Copier](b)
			for _, metadata := range []map[string]string{nil, {"n": "1"}} {
				_, err := copier.Copy(t.Context(), "d/a b+c", "copy", backend.CopyOptions{SourceVersion: old.VersionID, SourceETag: old.ETag, Metadata: metadata})
				if err != nil {
					t.Fatal(err)
				}
				if data, _, err := get(b, t, "copy", backend.GetOptions{}); err != nil || data != "one" {
					t.Errorf("%q, %v", data, err)
				}
			}
			v, _ := backend.As[backend.Versioner](b)
			for after, want := range map[string][]string{"": {"d/a b+c", "d/a b+c", "d/a b+c", "d/b"}, "d/a b+c": {"d/b"}, "d/b": nil} {
				page, err := v.VersionsPage(t.Context(), backend.ListOptions{Prefix: "d/", After: after})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, version := range page.Versions {
					got = append(got, version.Key)
				}
				if !slices.Equal(got, want) {
					t.Errorf("behind %q: %q, want %q", after, got, want)
				}
			}
		})
	}
}
