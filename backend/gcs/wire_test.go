package gcs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/test/fakegcs"
)

// recorder is a transport that remembers requests, and may answer by itself.
type recorder struct {
	answer func(*http.Request) *http.Response // nil, or nil of it: the server answers

	mu   sync.Mutex
	seen []string
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	line := req.Method + " " + req.URL.Path
	for _, name := range []string{"ifGenerationMatch", "ifMetagenerationMatch", "ifSourceGenerationMatch", "ifSourceMetagenerationMatch", "uploadType"} {
		if q := req.URL.Query(); q.Has(name) {
			line += " " + name + "=" + q.Get(name)
		}
	}
	for _, name := range []string{"X-Goog-If-Generation-Match", "X-Goog-If-Metageneration-Match"} {
		if value := req.Header.Get(name); value != "" {
			line += " " + name + "=" + value
		}
	}
	r.mu.Lock()
	r.seen = append(r.seen, line)
	r.mu.Unlock()
	if r.answer != nil {
		if resp := r.answer(req); resp != nil {
			if req.Body != nil {
				io.Copy(io.Discard, req.Body)
				req.Body.Close()
			}
			return resp, nil
		}
	}
	return http.DefaultTransport.RoundTrip(req)
}

// since returns what was sent since the last call.
func (r *recorder) since() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

func reply(req *http.Request, status int, body string, header ...string) *http.Response {
	resp := &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)), Request: req,
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		resp.Header.Set(name, value)
	}
	return resp
}

// onServer opens a new bucket of the real server behind a recorder.
func onServer(t *testing.T, endpoint func(*fakegcs.Server) string, rec *recorder) (backend.Backend, *fakegcs.Server, string) {
	t.Helper()
	isolate(t)
	srv := fakegcs.Shared(t)
	bucket := srv.NewBucket(t)
	b := open(t, gcs.Options{Bucket: bucket, Endpoint: endpoint(srv), Anonymous: true, Transport: rec})
	t.Cleanup(func() { b.Close() })
	rec.since()
	return b, srv, bucket
}

func bare(s *fakegcs.Server) string  { return s.Bare }
func whole(s *fakegcs.Server) string { return s.Endpoint }

func put(t *testing.T, b backend.Backend, key, data string) backend.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, backend.Bytes([]byte(data)), backend.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestEveryConditionIsSent looks at the requests, since the emulator ignores
// these conditions: on it the stale ones succeed.
func TestEveryConditionIsSent(t *testing.T) {
	rec := &recorder{}
	b, _, bucket := onServer(t, bare, rec)
	object := "/storage/v1/b/" + bucket + "/o/"
	old := put(t, b, "a", "one")
	now := put(t, b, "a", "two")
	gen := func(info backend.Info) string { g, _, _ := strings.Cut(info.ETag, "."); return g }
	copier, _ := backend.As[backend.Copier](b)
	assembler, _ := backend.As[backend.Assembler](b)
	rec.since()
	sends := func(what string, want ...string) {
		t.Helper()
		for _, line := range rec.since() {
			want = slices.DeleteFunc(want, func(w string) bool { return strings.HasPrefix(line, w) })
		}
		if len(want) > 0 {
			t.Errorf("%s did not send %q", what, want)
		}
	}

	if _, err := copier.Copy(t.Context(), "a", "b", backend.CopyOptions{SourceETag: old.ETag, Cond: backend.Cond{IfAbsent: true}}); err != nil {
		t.Error(err)
	}
	sends("copy", "POST "+object+"a/rewriteTo/b/"+bucket+"/o/b ifGenerationMatch=0 ifSourceGenerationMatch="+gen(old)+" ifSourceMetagenerationMatch=1")
	if _, err := copier.Copy(t.Context(), "a", "b", backend.CopyOptions{Cond: backend.Cond{IfMatch: old.ETag}}); err != nil {
		t.Error(err)
	}
	sends("copy over a version", "POST "+object+"a/rewriteTo/b/"+bucket+"/o/b ifGenerationMatch="+gen(old)+" ifMetagenerationMatch=1")

	asm, err := assembler.Assemble(t.Context(), "c", backend.PutOptions{Cond: backend.Cond{IfAbsent: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := asm.PutPart(t.Context(), 1, backend.Bytes([]byte("part"))); err != nil {
		t.Fatal(err)
	}
	if _, err := asm.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	sends("compose", "POST "+object+"c/compose ifGenerationMatch=0")

	err = b.Get(t.Context(), "a", backend.GetOptions{IfMatch: old.ETag}, func(backend.Info, io.Reader) error { return nil })
	if !errors.Is(err, backend.ErrPrecondition) { // the answer tells the version
		t.Errorf("a read of another version: %v", err)
	}
	sends("get", "GET /"+bucket+"/a X-Goog-If-Generation-Match="+gen(old)+" X-Goog-If-Metageneration-Match=1")

	if _, err := b.Put(t.Context(), "a", backend.Bytes(nil), backend.PutOptions{Cond: backend.Cond{IfMatch: old.ETag}}); !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("put: %v", err) // this one the emulator heeds
	}
	sends("put", "POST /upload/storage/v1/b/"+bucket+"/o ifGenerationMatch="+gen(old)+" ifMetagenerationMatch=1")
	if err := b.Delete(t.Context(), "a", backend.Cond{IfMatch: old.ETag}); err != nil {
		t.Errorf("the emulator heeds the condition of a deletion: %v", err)
	}
	sends("delete", "DELETE "+object+"a ifGenerationMatch="+gen(old)+" ifMetagenerationMatch=1")
	if gen(old) == gen(now) {
		t.Error("two contents have one generation")
	}
}

func TestManyPartsAreJoinedAsATree(t *testing.T) {
	rec := &recorder{}
	b, srv, bucket := onServer(t, whole, rec)
	assembler, _ := backend.As[backend.Assembler](b)
	asm, err := assembler.Assemble(t.Context(), "dir/big", backend.PutOptions{Metadata: map[string]string{"mode": "33188"}, ContentType: "text/plain"})
	if err != nil {
		t.Fatal(err)
	}
	const parts = 70
	want := ""
	for i := range parts {
		text := fmt.Sprintf("part %d;", i+1)
		want += text
		if err := asm.PutPart(t.Context(), i+1, backend.Bytes([]byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	if page, err := b.ListPage(t.Context(), backend.ListOptions{}); err != nil || len(page.Objects)+len(page.Prefixes) > 0 {
		t.Errorf("a listing shows parts: %+v, %v", page, err)
	}
	if page, err := b.ListPage(t.Context(), backend.ListOptions{Delimited: true}); err != nil || len(page.Objects)+len(page.Prefixes) > 0 {
		t.Errorf("a listing shows the prefix of parts: %+v, %v", page, err)
	}
	rec.since()
	info, err := asm.Complete(t.Context())
	if err != nil || info.Size != int64(len(want)) || info.Metadata["mode"] != "33188" || info.ContentType != "text/plain" {
		t.Fatalf("%+v, %v", info, err)
	}
	composed := 0
	for _, line := range rec.since() {
		if strings.HasSuffix(line, "/compose") {
			composed++
		}
	}
	if composed != 4 { // 32, 32 and 6 parts; then these three
		t.Errorf("%d requests to join %d parts", composed, parts)
	}
	if got := string(srv.Get(t, bucket, "dir/big")); got != want {
		t.Errorf("the bucket has %q", got)
	}
	if keys := srv.List(t, bucket, ""); !slices.Equal(keys, []string{"dir/big"}) {
		t.Errorf("left in the bucket: %q", keys)
	}
	if _, err := b.Stat(t.Context(), ".keifs-store/parts/x"); !errors.Is(err, backend.ErrBadKey) {
		t.Errorf("the reserved prefix: %v", err)
	}
}

func TestPartsThatACrashLeftAreDeletedAfterAWeek(t *testing.T) {
	isolate(t)
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	rec := &recorder{answer: func(r *http.Request) *http.Response {
		if r.URL.Query().Get("prefix") == "p/.keifs-store/" {
			return reply(r, 200, fmt.Sprintf(`{"items":[{"name":"p/.keifs-store/parts/old/1","updated":%q},{"name":"p/.keifs-store/parts/new/1","updated":%q}]}`,
				ago(8*24*time.Hour), ago(6*24*time.Hour)))
		}
		return reply(r, 200, `{}`)
	}}
	b := open(t, gcs.Options{Bucket: "bucket", Prefix: "p", Anonymous: true, Transport: rec})
	assembler, _ := backend.As[backend.Assembler](b)
	rec.since()
	for range 2 {
		if _, err := assembler.Assemble(t.Context(), "a", backend.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := rec.since(), []string{"GET /storage/v1/b/bucket/o", "DELETE /storage/v1/b/bucket/o/p/.keifs-store/parts/old/1"}; !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// A large upload goes in pieces, of which one that fails is sent again.
func TestALargeUploadIsResumed(t *testing.T) {
	failed := false
	rec := &recorder{}
	rec.answer = func(r *http.Request) *http.Response {
		if failed || !strings.HasPrefix(r.Header.Get("Content-Range"), "bytes 8388608-") {
			return nil
		}
		failed = true
		return reply(r, 503, `{"error":{"code":503,"message":"later"}}`)
	}
	b, srv, bucket := onServer(t, whole, rec)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20+1)
	info, err := b.Put(t.Context(), "big", backend.Bytes(data), backend.PutOptions{Cond: backend.Cond{IfAbsent: true}})
	if err != nil || info.Size != int64(len(data)) || !failed {
		t.Fatalf("%+v, %v; a piece has failed: %v", info, err, failed)
	}
	if !bytes.Equal(srv.Get(t, bucket, "big"), data) {
		t.Error("other bytes are in the bucket")
	}
	if first := rec.since()[0]; !strings.HasSuffix(first, "ifGenerationMatch=0 uploadType=resumable") {
		t.Errorf("it begins with %q", first)
	}
}

func TestContentThatIsNotThatOfItsChecksumIsCorrupt(t *testing.T) {
	isolate(t)
	sum := "X-Goog-Hash: crc32c=yZRlqg==,md5=XrY7u+Ae7tCTyyK7j1rNww==" // of "hello world"
	for body, want := range map[string]error{"hello world": nil, "hello w0rld": backend.ErrCorrupt} {
		rec := &recorder{answer: func(r *http.Request) *http.Response {
			return reply(r, 200, body, sum, "X-Goog-Generation: 5", "X-Goog-Metageneration: 2", "X-Goog-Meta-Mode: 33188")
		}}
		rec.answer = opensWith(rec.answer)
		b := open(t, gcs.Options{Bucket: "bucket", Anonymous: true, Transport: rec})
		data, info, err := backend.ReadAll(t.Context(), b, "a", 100)
		if !errors.Is(err, want) || want == nil && (string(data) != body || info.ETag != "5.2" || info.Metadata["mode"] != "33188") {
			t.Errorf("%q: %q, %+v, %v", body, data, info, err)
		}
	}
}

// opensWith lets Open succeed, and then answers.
func opensWith(answer func(*http.Request) *http.Response) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		if strings.HasSuffix(r.URL.Path, "/storageLayout") || strings.HasSuffix(r.URL.Path, "/o") && r.URL.Query().Get("maxResults") == "1" {
			return reply(r, 200, `{}`)
		}
		return answer(r)
	}
}

func TestABucketWithFoldersRenamesAtomically(t *testing.T) {
	isolate(t)
	for _, hierarchical := range []bool{false, true} {
		rec := &recorder{answer: func(r *http.Request) *http.Response {
			switch {
			case strings.HasSuffix(r.URL.Path, "/storageLayout"):
				return reply(r, 200, fmt.Sprintf(`{"hierarchicalNamespace":{"enabled":%v}}`, hierarchical))
			case strings.Contains(r.URL.Path, "/moveTo/") && r.URL.Query().Get("ifGenerationMatch") == "0":
				return reply(r, 412, `{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold.","errors":[{"reason":"conditionNotMet"}]}}`)
			}
			return reply(r, 200, `{"name":"b","generation":"7","metageneration":"1","size":"3"}`)
		}}
		b := open(t, gcs.Options{Bucket: "bucket", Anonymous: true, Transport: rec})
		renamer, ok := backend.As[backend.Renamer](b)
		if ok != hierarchical {
			t.Errorf("hierarchical: %v, and it renames: %v", hierarchical, ok)
		}
		if !ok {
			continue
		}
		rec.since()
		info, err := renamer.Rename(t.Context(), "dir/a", "b", backend.Cond{IfMatch: "5.2"})
		if err != nil || info.ETag != "7.1" || info.Key != "b" {
			t.Errorf("%+v, %v", info, err)
		}
		if _, err := renamer.Rename(t.Context(), "dir/a", "b", backend.Cond{IfAbsent: true}); !errors.Is(err, backend.ErrPrecondition) {
			t.Error(err)
		}
		if got := rec.since(); len(got) != 2 || got[0] != "POST /storage/v1/b/bucket/o/dir/a/moveTo/o/b ifGenerationMatch=5 ifMetagenerationMatch=2" {
			t.Errorf("sent %q", got)
		}
	}
}

// TestAChangeThatComesTooSoonIsRepeated: the service takes one change a second
// of each name, and answers 429 to more.
func TestAChangeThatComesTooSoonIsRepeated(t *testing.T) {
	isolate(t)
	refused := 0
	rec := &recorder{answer: opensWith(func(r *http.Request) *http.Response {
		if refused < 3 {
			refused++
			return reply(r, 429, `{"error":{"code":429,"message":"The object exceeded the rate limit for object mutation operations.","errors":[{"reason":"rateLimitExceeded"}]}}`)
		}
		return reply(r, 200, `{"name":"a","generation":"7","metageneration":"1","size":"0"}`)
	})}
	b := open(t, gcs.Options{Bucket: "bucket", Anonymous: true, Transport: rec})
	if every := b.Caps().ChangeEvery; every != time.Second {
		t.Errorf("a change every %v", every)
	}
	info, err := retry.Wrap(b, retry.Options{BaseDelay: time.Millisecond}).Put(t.Context(), "a", backend.Bytes(nil), backend.PutOptions{Cond: backend.Cond{IfMatch: "6.1"}})
	if err != nil || info.ETag != "7.1" || refused != 3 {
		t.Errorf("%+v, %v after %d refusals", info, err, refused)
	}
}
