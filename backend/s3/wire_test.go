package s3_test

import (
	"crypto/md5"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/s3"
)

// uploads answers an assembly and everything else well enough.
func uploads(w http.ResponseWriter, r *http.Request) {
	body := ""
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		body = `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`
	case r.Method == http.MethodPost && q.Has("uploadId"):
		body = `<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>`
	case r.Header.Get("X-Amz-Copy-Source") != "" && q.Has("uploadId"):
		body = `<CopyPartResult><ETag>"part"</ETag></CopyPartResult>`
	case r.Header.Get("X-Amz-Copy-Source") != "":
		body = `<CopyObjectResult><ETag>"copy"</ETag></CopyObjectResult>`
	case r.Method == http.MethodPost:
		body = `<DeleteResult></DeleteResult>`
	case q.Has("list-type"):
		body = `<ListBucketResult></ListBucketResult>`
	case q.Has("versions"):
		body = `<ListVersionsResult></ListVersionsResult>`
	}
	say(body, `ETag: "e"`, "Content-Type: image/png", "Cache-Control: no-store", "Content-Encoding: gzip", "Expires: Mon, 23 Nov 2026 12:00:00 GMT")(w, r)
}

// everything makes each request once.
func everything(t *testing.T, b backend.Backend) {
	t.Helper()
	for name, call := range calls(t, b) {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, _ := backend.As[backend.Copier](b)
	if _, err := c.Copy(t.Context(), "k", "k", backend.CopyOptions{Metadata: map[string]string{"mode": "1"}}); err != nil {
		t.Errorf("copy with metadata: %v", err)
	}
	a, _ := backend.As[backend.Assembler](b)
	asm, err := a.Assemble(t.Context(), "k", backend.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := asm.PutPart(t.Context(), 1, backend.Bytes([]byte("p"))); err != nil {
		t.Error(err)
	}
	if err := asm.CopyPart(t.Context(), 2, "k", "e", 5, 5); err != nil {
		t.Error(err)
	}
	if _, err := asm.Complete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := asm.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

// what is what a request does: "PUT", "PUT copy", "PUT part", "PUT part copy", "POST uploads", …
func what(r *http.Request) string {
	s, q := r.Method, r.URL.Query()
	for _, name := range []string{"uploads", "delete", "versions"} {
		if q.Has(name) {
			s += " " + name
		}
	}
	if q.Has("uploadId") {
		s += " part"
	}
	if r.Header.Get("X-Amz-Copy-Source") != "" {
		s += " copy"
	}
	return s
}

func (f *fake) all() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// sent checks which requests have a header of that value.
func (f *fake) sent(t *testing.T, header, value string, want ...string) {
	t.Helper()
	for _, r := range f.all() {
		got, expected := r.Header.Get(header), ""
		if slices.Contains(want, what(r)) || slices.Contains(want, "all") {
			expected = value
		}
		if got != expected {
			t.Errorf("%s: %s is %q, want %q", what(r), header, got, expected)
		}
	}
}

func TestOptionsReachTheWire(t *testing.T) {
	f := newFake(t)
	creates := []string{"PUT", "PUT copy", "POST uploads"}

	b := f.open(t, s3.Options{RequesterPays: true, StorageClass: "STANDARD_IA", SSE: "aws:kms", SSEKMSKeyID: "a-key"})
	f.set(uploads)
	everything(t, b)
	f.sent(t, "X-Amz-Request-Payer", "requester", "all")
	f.sent(t, "X-Amz-Storage-Class", "STANDARD_IA", creates...)
	f.sent(t, "X-Amz-Server-Side-Encryption", "aws:kms", creates...)
	f.sent(t, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "a-key", creates...)
	for _, r := range f.all() {
		if auth := r.Header.Get("Authorization"); !strings.Contains(auth, "Credential=key/") || !strings.Contains(auth, "x-amz-request-payer") {
			t.Errorf("%s is signed by %q", what(r), auth)
		}
	}

	b = f.open(t, s3.Options{SSE: "AES256"})
	f.set(uploads)
	everything(t, b)
	f.sent(t, "X-Amz-Server-Side-Encryption", "AES256", creates...)
	f.sent(t, "X-Amz-Storage-Class", "")
	f.sent(t, "X-Amz-Request-Payer", "")

	key := []byte(strings.Repeat("k", 32))
	sum := md5.Sum(key)
	data := []string{"GET", "HEAD", "PUT", "PUT copy", "PUT part", "PUT part copy", "POST uploads", "POST part"}
	b = f.open(t, s3.Options{SSECustomerKey: key})
	f.set(uploads)
	everything(t, b)
	for _, prefix := range []string{"X-Amz-Server-Side-Encryption-Customer-", "X-Amz-Copy-Source-Server-Side-Encryption-Customer-"} {
		if prefix == "X-Amz-Copy-Source-Server-Side-Encryption-Customer-" {
			data = []string{"PUT copy", "PUT part copy"}
		}
		for _, r := range f.all() {
			q := r.URL.Query()
			want := slices.Contains(data, what(r)) && !q.Has("list-type")
			for name, value := range map[string]string{
				"Algorithm": "AES256",
				"Key":       base64.StdEncoding.EncodeToString(key),
				"Key-Md5":   base64.StdEncoding.EncodeToString(sum[:]),
			} {
				if got := r.Header.Get(prefix + name); want && got != value || !want && got != "" {
					t.Errorf("%s: %s is %q", what(r), prefix+name, got)
				}
			}
		}
	}
}

func TestAnonymousSignsNothing(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{Anonymous: true})
	f.set(uploads)
	everything(t, b)
	f.sent(t, "Authorization", "")
}

func TestPathStyle(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(uploads)
	everything(t, b)
	for _, r := range f.all() {
		if !strings.HasPrefix(r.URL.Path, "/bucket") {
			t.Errorf("%s goes to %s", what(r), r.URL.Path)
		}
	}
	hosts := &recorder{next: func(r *http.Request) *http.Response { return answer(r, 200, `<ListBucketResult/>`) }}
	open(t, s3.Options{Bucket: "bucket", Endpoint: "http://s3.localhost:1", PathStyle: new(false), Transport: hosts})
	for _, url := range hosts.urls() {
		if !strings.HasPrefix(url, "http://bucket.s3.localhost:1/?") {
			t.Errorf("goes to %s", url)
		}
	}
}

// A store that does not know a trailer or a streamed signature must do as well.
func TestBodiesArePlain(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(uploads)
	everything(t, b)
	for _, r := range f.all() {
		for _, header := range []string{"X-Amz-Trailer", "X-Amz-Decoded-Content-Length", "Content-Encoding"} {
			if v := r.Header.Get(header); v != "" && !(header == "Content-Encoding" && v == "gzip") {
				t.Errorf("%s has %s: %s", what(r), header, v)
			}
		}
		hash := r.Header.Get("X-Amz-Content-Sha256")
		switch what(r) {
		case "PUT":
			if len(hash) != 64 || r.ContentLength != 1 {
				t.Errorf("an object of %d bytes is sent with hash %q", r.ContentLength, hash)
			}
		case "PUT part":
			if hash != "UNSIGNED-PAYLOAD" || r.ContentLength != 1 {
				t.Errorf("a part of %d bytes is sent with hash %q", r.ContentLength, hash)
			}
		case "POST uploads":
			if v := r.Header.Get("X-Amz-Checksum-Algorithm"); v != "" {
				t.Errorf("an upload that copies declares %s: servers then refuse to copy parts", v)
			}
		}
	}
}

func TestConditionsReachTheWire(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{Prefix: "p"})
	f.set(uploads)
	check := func(header, want string) {
		t.Helper()
		if got := f.last().Header.Get(header); got != want {
			t.Errorf("%s: %s is %q, want %q", what(f.last()), header, got, want)
		}
	}
	ctx := t.Context()
	absent, match := backend.Cond{IfAbsent: true}, backend.Cond{IfMatch: "e"}
	b.Put(ctx, "k", backend.Bytes(nil), backend.PutOptions{Cond: absent})
	check("If-None-Match", "*")
	b.Put(ctx, "k", backend.Bytes(nil), backend.PutOptions{Cond: match})
	check("If-Match", `"e"`)
	b.Delete(ctx, "k", match)
	check("If-Match", `"e"`)
	get(b, t, "k", backend.GetOptions{IfMatch: "e", Offset: 3, Length: 4})
	check("If-Match", `"e"`)
	check("Range", "bytes=3-6")
	get(b, t, "k", backend.GetOptions{IfMatch: `W/"weak"`})
	check("If-Match", `W/"weak"`)
	c, _ := backend.As[backend.Copier](b)
	c.Copy(ctx, "a b+%/ü?", "k", backend.CopyOptions{SourceETag: "s", Cond: absent})
	check("X-Amz-Copy-Source", "bucket/p/a%20b%2B%25/%C3%BC%3F")
	check("X-Amz-Copy-Source-If-Match", `"s"`)
	check("If-None-Match", "*")
	c.Copy(ctx, "k", "k", backend.CopyOptions{Cond: match})
	check("If-Match", `"e"`)
	a, _ := backend.As[backend.Assembler](b)
	for _, cond := range []backend.Cond{absent, match} {
		asm, err := a.Assemble(ctx, "k", backend.PutOptions{Cond: cond})
		if err != nil {
			t.Fatal(err)
		}
		check("If-None-Match", "")
		asm.CopyPart(ctx, 1, "k", "s", 5, 10)
		check("X-Amz-Copy-Source-If-Match", `"s"`)
		check("X-Amz-Copy-Source-Range", "bytes=5-14")
		asm.Complete(ctx)
		if cond.IfAbsent {
			check("If-None-Match", "*")
		} else {
			check("If-Match", `"e"`)
		}
	}

	// What is known to be ignored is not asked for.
	b = f.open(t, s3.Options{Caps: func(c *backend.Caps) { c.CondCopy = false }})
	f.set(uploads)
	c, _ = backend.As[backend.Copier](b)
	if _, err := c.Copy(ctx, "k", "l", backend.CopyOptions{Cond: absent}); kind(t, err) != backend.ErrUnsupported || f.count() > 0 {
		t.Errorf("%v, after %d requests", err, f.count())
	}
}

// Replacing the metadata of an object must not take its type, nor the other
// headers that some other tool gave it.
func TestCopyWithNewMetadataKeepsTheHeaders(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(uploads)
	c, _ := backend.As[backend.Copier](b)
	if _, err := c.Copy(t.Context(), "k", "k", backend.CopyOptions{Metadata: map[string]string{"mode": "33188"}}); err != nil {
		t.Fatal(err)
	}
	h := f.last().Header
	for name, want := range map[string]string{
		"X-Amz-Metadata-Directive": "REPLACE", "X-Amz-Meta-Mode": "33188", "Content-Type": "image/png",
		"Cache-Control": "no-store", "Content-Encoding": "gzip", "Expires": "Mon, 23 Nov 2026 12:00:00 GMT", "X-Amz-Copy-Source-If-Match": `"e"`,
	} {
		if h.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, h.Get(name), want)
		}
	}
	f.set(uploads)
	if _, err := c.Copy(t.Context(), "k", "l", backend.CopyOptions{}); err != nil || f.count() != 1 || f.last().Header.Get("X-Amz-Metadata-Directive") != "" {
		t.Errorf("a plain copy takes %d requests, %v", f.count(), err)
	}
}

// Keys arrive as they are, whatever a path would make of them.
func TestOddKeysReachTheWire(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(uploads)
	for _, key := range []string{"a//b", "a/../b", "./a", "/a", "a/.", "a b+c%41&d=e?f#g", "ü\n\x00\x01", "a%2Fb", `\`, "~'()*!"} {
		if _, err := b.Put(t.Context(), key, backend.Bytes(nil), backend.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimPrefix(f.last().URL.Path, "/bucket/"); got != key {
			t.Errorf("%q arrives as %q", key, got)
		}
	}
}

func TestListingIsDecodedOnlyWhenTheServerSaysThatItIsEncoded(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{Prefix: "p q"})
	const page = `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>x</Prefix>ENCODING
<Contents><Key>KEY</Key><LastModified>2026-11-23T12:34:56.000Z</LastModified><ETag>&#34;e&quot;</ETag><Size>7</Size>
<Owner><ID>1</ID><Key>none</Key></Owner><StorageClass>STANDARD</StorageClass></Contents>
<CommonPrefixes><Prefix>KEY/</Prefix></CommonPrefixes><Delimiter/><IsTruncated>true</IsTruncated>
<NextContinuationToken>a&amp;b%41</NextContinuationToken></ListBucketResult>`
	for _, test := range []struct{ encoding, key, want string }{
		{"", "p q/a%41+&lt;&amp;amp;", "a%41+<&amp;"},
		{"<EncodingType>url</EncodingType>", "p+q/a%41%2B%0A", "aA+\n"},
		{"<EncodingType>url</EncodingType>", "p%20q/a", "a"},
	} {
		f.set(say(strings.NewReplacer("ENCODING", test.encoding, "KEY", test.key).Replace(page)))
		got, err := b.ListPage(t.Context(), backend.ListOptions{Prefix: "a", Delimited: true, Limit: 5000, Token: "tok&en"})
		if err != nil || len(got.Objects) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		want := backend.Info{Key: test.want, Size: 7, ETag: "e", ModTime: time.Date(2026, 11, 23, 12, 34, 56, 0, time.UTC)}
		if o := got.Objects[0]; o.Key != want.Key || o.Size != 7 || o.ETag != "e" || !o.ModTime.Equal(want.ModTime) {
			t.Errorf("%+v, want %+v", o, want)
		}
		if !slices.Equal(got.Prefixes, []string{test.want + "/"}) || got.Next != "a&b%41" {
			t.Errorf("%q, %q", got.Prefixes, got.Next)
		}
		q := f.last().URL.Query()
		for name, want := range map[string]string{
			"encoding-type": "url", "prefix": "p q/a", "delimiter": "/", "max-keys": "1000", "continuation-token": "tok&en",
		} {
			if q.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, q.Get(name), want)
			}
		}
	}
	f.set(say(`<ListBucketResult><Contents><Key>other/a</Key></Contents></ListBucketResult>`))
	if page, err := b.ListPage(t.Context(), backend.ListOptions{}); err == nil {
		t.Errorf("a key outside the prefix: %+v", page)
	}
}

// Versions and deletion marks of one second stay in the order of the store.
func TestVersionsKeepTheirOrder(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	v, _ := backend.As[backend.Versioner](b)
	const at = `<LastModified>2026-11-23T12:34:56Z</LastModified>`
	f.set(say(`<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
<DeleteMarker><Key>a%20b</Key><VersionId>v4</VersionId><IsLatest>true</IsLatest>` + at + `</DeleteMarker>
<Version><Key>a%20b</Key><VersionId>v3</VersionId><IsLatest>false</IsLatest>` + at + `<ETag>"3"</ETag><Size>3</Size></Version>
<DeleteMarker><Key>a%20b</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>` + at + `</DeleteMarker>
<Version><Key>a%20b</Key><VersionId>null</VersionId><IsLatest>false</IsLatest>` + at + `<ETag>"1"</ETag><Size>1</Size></Version>
</ListVersionsResult>`))
	page, err := v.VersionsPage(t.Context(), backend.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range page.Versions {
		s := e.Key + " " + e.VersionID + " " + e.ETag
		if e.Deleted {
			s += "deleted"
		}
		if e.Latest {
			s += " latest"
		}
		got = append(got, s)
	}
	if want := []string{"a b v4 deleted latest", "a b v3 3", "a b v2 deleted", "a b null 1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	v.VersionsPage(t.Context(), backend.ListOptions{Token: page.Next})
	if q := f.last().URL.Query(); q.Get("key-marker") != "a b" || q.Get("version-id-marker") != "v1" {
		t.Errorf("the next page is asked for by %q", q)
	}
}

func TestVersionsOfServersThatTellDeletionsFirst(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	v, _ := backend.As[backend.Versioner](b)
	f.set(say(`<ListVersionsResult>
<DeleteMarker><Key>a</Key><VersionId>a2</VersionId><LastModified>2026-11-23T12:34:56.7Z</LastModified></DeleteMarker>
<DeleteMarker><Key>b</Key><VersionId>b2</VersionId><IsLatest>true</IsLatest><LastModified>2026-11-23T12:34:56.7Z</LastModified></DeleteMarker>
<Version><Key>a</Key><VersionId>a3</VersionId><IsLatest>true</IsLatest><LastModified>2026-11-23T12:34:56Z</LastModified></Version>
<Version><Key>a</Key><VersionId>a1</VersionId><LastModified>2026-11-23T12:34:55Z</LastModified></Version>
<Version><Key>b</Key><VersionId>b1</VersionId><LastModified>2026-11-23T12:34:55Z</LastModified></Version>
</ListVersionsResult>`))
	page, err := v.VersionsPage(t.Context(), backend.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range page.Versions {
		got = append(got, e.VersionID)
	}
	if want := []string{"a3", "a2", "a1", "b2", "b1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A listing that would go round for ever ends with an error.
func TestPageThatIsFollowedByItself(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(say(`<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>`))
	if _, err := b.ListPage(t.Context(), backend.ListOptions{Token: "x"}); kind(t, err) != backend.ErrIO {
		t.Error(err)
	}
	f.set(say(`<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker></ListVersionsResult>`))
	v, _ := backend.As[backend.Versioner](b)
	page, err := v.VersionsPage(t.Context(), backend.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.VersionsPage(t.Context(), backend.ListOptions{Token: page.Next}); kind(t, err) != backend.ErrIO {
		t.Error(err)
	}
}

// A refused condition is worth asking for before megabytes are on their way.
func TestRefusedBodyIsNotSent(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusPreconditionFailed) })
	src := &countingSource{Source: backend.Bytes(make([]byte, 4<<20))}
	_, err := b.Put(t.Context(), "a", src, backend.PutOptions{Cond: backend.Cond{IfAbsent: true}})
	if kind(t, err) != backend.ErrPrecondition {
		t.Error(err)
	}
	if n := src.n.Load(); n > src.Size() { // once, for the signature
		t.Errorf("%d bytes read for a body of %d", n, src.Size())
	}
}

type countingSource struct {
	backend.Source
	n atomic.Int64
}

func (c *countingSource) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Source.ReadAt(p, off)
	c.n.Add(int64(n))
	return n, err
}

// The caller may do what it likes with its source once Put has returned, even
// where the server answered before it had read the body.
func TestSourceIsNotReadAfterPut(t *testing.T) {
	f := newFake(t)
	b := f.open(t, s3.Options{})
	f.set(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
	a, _ := backend.As[backend.Assembler](b)
	for range 20 {
		src := &guarded{size: 8 << 20}
		_, err := b.Put(t.Context(), "k", src, backend.PutOptions{})
		src.close()
		if err == nil {
			t.Fatal("refused, but stored")
		}
		f.set(uploads)
		asm, err := a.Assemble(t.Context(), "k", backend.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f.set(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
		part := &guarded{size: 8 << 20}
		asm.PutPart(t.Context(), 1, part)
		part.close()
		if src.late || part.late {
			t.Fatal("the source is read after the call")
		}
	}
}

type guarded struct {
	size int64

	mu           sync.Mutex
	closed, late bool
}

func (g *guarded) Size() int64 { return g.size }

func (g *guarded) ReadAt(p []byte, off int64) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.late = g.late || g.closed
	n := int(min(int64(len(p)), g.size-off))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (g *guarded) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
