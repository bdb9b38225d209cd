package azure_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/azure"
	"github.com/keifs/keifs/backend/httpio"
	"github.com/keifs/keifs/test/azurite"
)

// recorder is a transport that remembers what it carries, and may answer.
type recorder struct {
	next   http.RoundTripper
	answer func(*http.Request) *http.Response // nil, or no answer: next

	mu   sync.Mutex
	seen []*http.Request
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.seen = append(r.seen, req)
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		if resp := answer(req); resp != nil {
			return resp, nil
		}
	}
	if r.next == nil {
		return nil, &net.OpError{Op: "dial", Err: errors.New("no network here")}
	}
	return r.next.RoundTrip(req)
}

// take returns what was carried since the last time.
func (r *recorder) take() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

func answer(r *http.Request, status int, code, body string) *http.Response {
	resp := &http.Response{
		StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
	if code != "" {
		resp.Header.Set("x-ms-error-code", code)
	}
	return resp
}

const emptyListing = `<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>`

func TestAnswersBecomeErrors(t *testing.T) {
	isolate(t)
	wire := &recorder{answer: func(r *http.Request) *http.Response { return answer(r, 200, "", emptyListing) }}
	b := open(t, azure.Options{Container: "c", Account: "a", Key: "c2VjcmV0", Transport: wire})
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{404, "BlobNotFound", backend.ErrNotExist}, {404, "", backend.ErrNotExist}, {404, "ContainerNotFound", backend.ErrNoBucket},
		{409, "BlobAlreadyExists", backend.ErrPrecondition}, {412, "TargetConditionNotMet", backend.ErrPrecondition}, {412, "", backend.ErrPrecondition},
		{403, "AuthenticationFailed", backend.ErrCredentials}, {401, "", backend.ErrCredentials}, {401, "NoAuthenticationInformation", backend.ErrCredentials},
		{403, "AuthorizationPermissionMismatch", backend.ErrPermission}, {403, "", backend.ErrPermission}, {412, "LeaseIdMissing", backend.ErrPermission},
		{503, "ServerBusy", backend.ErrThrottled}, {429, "", backend.ErrThrottled}, {500, "OperationTimedOut", backend.ErrTransient},
		{500, "InternalError", backend.ErrTransient}, {502, "", backend.ErrTransient}, {408, "", backend.ErrTransient},
		{413, "RequestBodyTooLarge", backend.ErrTooLarge}, {400, "MetadataTooLarge", backend.ErrTooLarge}, {400, "InvalidResourceName", backend.ErrBadKey},
		{414, "", backend.ErrBadKey}, {501, "NotImplemented", backend.ErrUnsupported}, {507, "", backend.ErrNoSpace},
		{409, "SnapshotsPresent", backend.ErrIO}, {409, "BlobArchived", backend.ErrIO}, {400, "InvalidQueryParameterValue", backend.ErrInvalid}, {302, "", backend.ErrIO},
	} {
		wire.answer = func(r *http.Request) *http.Response { return answer(r, c.status, c.code, "") }
		_, err := b.Put(t.Context(), "k", backend.Bytes([]byte("x")), backend.PutOptions{})
		for _, kind := range backend.Sentinels() {
			if errors.Is(err, kind) != (kind == c.want) {
				t.Errorf("%d %s: %v; %q: %v", c.status, c.code, err, kind, kind == c.want)
			}
		}
		if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%d %s: %q", c.status, c.code, err)
		}
	}
}

// TestEachMethodIsOneRequest counts what is sent, with retries nowhere.
func TestEachMethodIsOneRequest(t *testing.T) {
	opts := onServer(t)
	wire := &recorder{next: httpio.NewTransport()}
	opts.Transport = wire
	b := open(t, opts)
	ctx := t.Context()
	copier, _ := backend.As[backend.Copier](b)
	assembler, _ := backend.As[backend.Assembler](b)
	batch, _ := backend.As[backend.BatchDeleter](b)
	src, err := b.Put(ctx, "a b", backend.Bytes([]byte("content")), backend.PutOptions{Metadata: map[string]string{"keifs-nonce": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	asm, err := assembler.Assemble(ctx, "parts", backend.PutOptions{Cond: backend.Cond{IfAbsent: true}})
	if err != nil {
		t.Fatal(err)
	}
	wire.take()
	many := make([]backend.Deletion, 600)
	for i := range many {
		many[i].Key = fmt.Sprint("none", i)
	}
	for _, c := range []struct {
		name string
		do   func() error
		want []string // method, query parameters, headers of our making
	}{
		{"stat", func() error { _, err := b.Stat(ctx, "a b"); return err }, []string{"HEAD"}},
		{"get", func() error {
			return b.Get(ctx, "a b", backend.GetOptions{Offset: 2, Length: 3, IfMatch: src.ETag}, func(_ backend.Info, r io.Reader) error {
				data, err := io.ReadAll(r)
				if string(data) != "nte" {
					t.Errorf("%q", data)
				}
				return err
			})
		}, []string{"GET If-Match X-Ms-Range"}},
		{"list", func() error { _, err := b.ListPage(ctx, backend.ListOptions{Prefix: "a"}); return err }, []string{"GET comp=list"}},
		{"create", func() error {
			_, err := b.Put(ctx, "new", backend.Bytes(nil), backend.PutOptions{Cond: backend.Cond{IfAbsent: true}, Metadata: map[string]string{"a-b": "1"}})
			return err
		}, []string{"PUT If-None-Match X-Ms-Meta-A_2db"}},
		{"copy", func() error {
			_, err := copier.Copy(ctx, "a b", "copy", backend.CopyOptions{SourceETag: src.ETag, Cond: backend.Cond{IfAbsent: true}})
			return err
		}, []string{"PUT If-None-Match X-Ms-Copy-Source X-Ms-Source-If-Match"}},
		{"metadata", func() error {
			info, err := copier.Copy(ctx, "a b", "a b", backend.CopyOptions{SourceETag: src.ETag, Metadata: map[string]string{"n": "2"}})
			src.ETag = info.ETag
			return err
		}, []string{"PUT comp=metadata If-Match X-Ms-Meta-N"}},
		{"part", func() error { return asm.PutPart(ctx, 1, backend.Bytes([]byte("one"))) }, []string{"PUT comp=block"}},
		{"copied part", func() error { return asm.CopyPart(ctx, 2, "a b", src.ETag, 1, 3) },
			[]string{"HEAD If-Match", "PUT comp=block X-Ms-Copy-Source X-Ms-Source-If-Match X-Ms-Source-Range"}},
		{"another of that source", func() error { return asm.CopyPart(ctx, 3, "a b", src.ETag, 2, 3) },
			[]string{"PUT comp=block X-Ms-Copy-Source X-Ms-Source-If-Match X-Ms-Source-Range"}},
		{"complete", func() error { _, err := asm.Complete(ctx); return err }, []string{"PUT comp=blocklist If-None-Match"}},
		{"delete", func() error { return b.Delete(ctx, "a b", backend.Cond{IfMatch: src.ETag}) }, []string{"DELETE If-Match"}},
		{"batch", func() error { _, err := batch.DeleteBatch(ctx, many); return err }, []string{"POST comp=batch", "POST comp=batch", "POST comp=batch"}},
		{"what XML cannot name", func() error { _, err := b.ListPage(ctx, backend.ListOptions{Prefix: "a\x01"}); return err }, nil},
	} {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var got []string
		for _, r := range wire.take() {
			got = append(got, sketch(t, r))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if data, _, err := backend.ReadAll(ctx, b, "parts", 100); err != nil || string(data) != "oneontnte" {
		t.Errorf("%q, %v", data, err)
	}
}

// sketch is a request by what matters here. A source is never named with the
// key of the account.
func sketch(t *testing.T, r *http.Request) string {
	s := r.Method
	if comp := r.URL.Query().Get("comp"); comp != "" {
		s += " comp=" + comp
	}
	names, source := []string{}, ""
	for name, values := range r.Header { // the SDK's are in lower case
		switch name = http.CanonicalHeaderKey(name); name {
		case "If-Match", "If-None-Match", "X-Ms-Range", "X-Ms-Copy-Source", "X-Ms-Source-If-Match", "X-Ms-Source-Range":
			names = append(names, name)
			if name == "X-Ms-Copy-Source" {
				source = values[0]
			}
		default:
			if strings.HasPrefix(name, "X-Ms-Meta-") {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	if source != "" {
		u, err := url.Parse(source)
		if err != nil || u.Query().Get("sig") == "" || u.Query().Get("sp") != "r" || strings.Contains(source, azurite.Key) {
			t.Errorf("the source is %s", source)
		}
	}
	return strings.Join(append([]string{s}, names...), " ")
}

func TestASharedAccessSignatureIsEnough(t *testing.T) {
	opts := onServer(t)
	s := azurite.Shared(t)
	signed, err := s.Client(t, opts.Container).GetSASURL(
		sas.ContainerPermissions{Read: true, Write: true, Create: true, List: true, Delete: true}, time.Now().Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(signed, "?")
	t.Setenv("AZURE_STORAGE_SAS_TOKEN", token)
	opts.Key = ""
	b := open(t, opts)
	ctx := t.Context()
	if strings.Contains(b.Name(), "sig=") {
		t.Error(b.Name())
	}
	if _, err := b.Put(ctx, "a", backend.Bytes([]byte("content")), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	copier, _ := backend.As[backend.Copier](b)
	if _, err := copier.Copy(ctx, "a", "b", backend.CopyOptions{Metadata: map[string]string{}}); err != nil {
		t.Error(err)
	}
	batch, _ := backend.As[backend.BatchDeleter](b)
	if errs, err := batch.DeleteBatch(ctx, []backend.Deletion{{Key: "a"}, {Key: "b"}}); err != nil || errors.Join(errs...) != nil {
		t.Error(errs, err)
	}
	for info, err := range backend.ListRecursive(ctx, b, "") {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestOpenFailsAtOnce(t *testing.T) {
	good := onServer(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, c := range map[string]struct {
		change func(*azure.Options)
		want   error
	}{
		"no such container": {func(o *azure.Options) { o.Container = "none" }, backend.ErrNoBucket},
		// The emulator's answer is AuthorizationFailure; Azure's is AuthenticationFailed.
		"wrong key":       {func(o *azure.Options) { o.Key = "d3Jvbmc=" }, backend.ErrPermission},
		"no key":          {func(o *azure.Options) { o.Key = "not base64!" }, backend.ErrCredentials},
		"nobody answers":  {func(o *azure.Options) { o.Endpoint = "http://" + closed.Addr().String() + "/x" }, backend.ErrUnreachable},
		"no credentials":  {func(o *azure.Options) { o.Key, o.Account, o.Endpoint, o.Transport = "", "a", "", &recorder{} }, backend.ErrCredentials},
		"no account":      {func(o *azure.Options) { o.Endpoint = "" }, backend.ErrInvalid},
		"secret in a URL": {func(o *azure.Options) { o.Endpoint = "https://a.blob.core.windows.net?sig=x" }, backend.ErrInvalid},
		"no container":    {func(o *azure.Options) { o.Container = "" }, backend.ErrInvalid},
		"no prefix":       {func(o *azure.Options) { o.Prefix = "a/../b" }, backend.ErrInvalid},
	} {
		opts := good
		c.change(&opts)
		b, err := azure.Open(t.Context(), opts)
		if err == nil {
			b.Close()
		}
		if !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestWhatOtherToolsStoredIsRead has names in upper case, and names that only
// look like ours.
func TestWhatOtherToolsStoredIsRead(t *testing.T) {
	opts := onServer(t)
	s := azurite.Shared(t)
	word := "1"
	s.Put(t, opts.Container, "p/theirs", []byte("content"), map[string]*string{"Mode": &word, "My_Name": &word})
	opts.Prefix = "p"
	b := open(t, opts)
	info, err := b.Stat(t.Context(), "theirs")
	if err != nil || info.Size != 7 || info.Metadata["mode"] != "1" || info.Metadata["my_name"] != "1" {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := b.Put(t.Context(), "dir/", backend.Bytes(nil), backend.PutOptions{Metadata: map[string]string{"keifs-nonce": "x"}}); err != nil {
		t.Fatal(err)
	}
	if _, metadata := s.Get(t, opts.Container, "p/dir/"); len(metadata) != 1 {
		t.Errorf("%v", metadata)
	}
	if want := "az://" + opts.Container + "/p?endpoint=" + s.Endpoint; b.Name() != want {
		t.Errorf("%s, want %s", b.Name(), want)
	}
}

// TestAHierarchicalNamespaceIsRefused answers as such an account does, which
// the emulator is not; where the account does not say, it is one like others.
func TestAHierarchicalNamespaceIsRefused(t *testing.T) {
	isolate(t)
	for tells, want := range map[string]error{"true": backend.ErrUnsupported, "false": nil, "": nil, "refused": nil} {
		wire := &recorder{answer: func(r *http.Request) *http.Response {
			if q := r.URL.Query(); q.Get("restype") != "account" || q.Get("comp") != "properties" {
				return answer(r, 200, "", emptyListing)
			}
			if tells == "refused" {
				return answer(r, 403, "AuthorizationPermissionMismatch", "")
			}
			resp := answer(r, 200, "", "")
			if tells != "" {
				resp.Header.Set("x-ms-is-hns-enabled", tells)
			}
			return resp
		}}
		b, err := azure.Open(t.Context(), azure.Options{Container: "c", Account: "a", Key: "c2VjcmV0", Transport: wire})
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", tells, err, want)
		}
		if err == nil {
			b.Close()
		}
		if sent := wire.take(); len(sent) != 2 {
			t.Errorf("%q: %d requests", tells, len(sent))
		}
	}
}
