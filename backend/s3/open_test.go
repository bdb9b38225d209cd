package s3_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/test/versitygw"
)

// recorder is a transport that answers by itself.
type recorder struct {
	next func(*http.Request) *http.Response

	mu   sync.Mutex
	seen []*http.Request
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, req)
	return r.next(req), nil
}

func (r *recorder) urls() (urls []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, req := range r.seen {
		urls = append(urls, req.URL.String())
	}
	return urls
}

func answer(r *http.Request, status int, body string, header ...string) *http.Response {
	resp := &http.Response{
		StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		resp.Header.Set(name, value)
	}
	return resp
}

// failsToOpen checks that Open fails so, soon, and in one line.
func failsToOpen(t *testing.T, opts s3.Options, want error) {
	t.Helper()
	began := time.Now()
	b, err := s3.Open(t.Context(), opts)
	if err == nil {
		b.Close()
		t.Errorf("opened %+v", opts)
		return
	}
	if got := kind(t, err); got != want {
		t.Errorf("%v, want %q", err, want)
	}
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
		t.Errorf("not one clear line: %v", err)
	}
	if d := time.Since(began); d > 8*time.Second {
		t.Errorf("it takes %v to fail", d)
	}
}

func TestOpenFailsAtOnce(t *testing.T) {
	srv := versitygw.Shared(t)
	credentials(t, srv)
	bucket := srv.NewBucket(t)
	failsToOpen(t, s3.Options{Bucket: "no-such-bucket", Endpoint: srv.Endpoint}, backend.ErrNoBucket)
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: srv.Endpoint, Anonymous: true}, backend.ErrPermission)
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: srv.Endpoint, Profile: "no-such-profile"}, backend.ErrCredentials)

	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: srv.Endpoint}, backend.ErrCredentials)
	t.Setenv("AWS_ACCESS_KEY_ID", "nobody")
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: srv.Endpoint}, backend.ErrCredentials)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	l.Close()
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: closed}, backend.ErrUnreachable)
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: "http://no-such-host.invalid"}, backend.ErrUnreachable)
	failsToOpen(t, s3.Options{Bucket: bucket, Endpoint: strings.Replace(srv.Endpoint, "http:", "https:", 1)}, backend.ErrUnreachable)

	for _, opts := range []s3.Options{
		{}, {Bucket: "a/b"}, {Bucket: bucket, Prefix: strings.Repeat("x/", 600)}, {Bucket: bucket, Endpoint: "ftp://x"}, {Bucket: bucket, Endpoint: "http://user:pw@x"},
		{Bucket: bucket, SSECustomerKey: []byte("short")}, {Bucket: bucket, SSE: "AES256", SSECustomerKey: make([]byte, 32)},
	} {
		failsToOpen(t, opts, backend.ErrInvalid)
	}
	failsToOpen(t, s3.Options{Bucket: "b--usw2-az1--x-s3"}, backend.ErrUnsupported)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s3.Open(ctx, s3.Options{Bucket: bucket, Endpoint: srv.Endpoint}); err == nil || ctx.Err() == nil {
		t.Error("opened with a context that has ended")
	}
}

// Where no environment variable, file or machine has credentials, that is
// known soon: also where the place to ask an EC2 machine for them is silent.
func TestMissingCredentialsAreFoundOutSoon(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	isolate(t)
	failsToOpen(t, s3.Options{Bucket: "bucket", Endpoint: "http://127.0.0.1:1"}, backend.ErrCredentials)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
	failsToOpen(t, s3.Options{Bucket: "bucket", Endpoint: "http://127.0.0.1:1"}, backend.ErrCredentials)
}

func TestRegionIsThatOfTheBucket(t *testing.T) {
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	aws := &recorder{next: func(r *http.Request) *http.Response {
		const home = "X-Amz-Bucket-Region: eu-central-1"
		switch {
		case r.Method == http.MethodHead:
			return answer(r, 403, "", home)
		case !strings.Contains(r.URL.Host, "eu-central-1"):
			return answer(r, 301, `<Error><Code>PermanentRedirect</Code></Error>`, home)
		}
		return answer(r, 200, `<ListBucketResult/>`)
	}}
	for _, region := range []string{"", "us-west-2", "eu-central-1"} {
		b := open(t, s3.Options{Bucket: "bucket", Region: region, Transport: aws})
		if b.Name() != "s3://bucket" {
			t.Errorf("its name is %s", b.Name())
		}
		if _, err := b.ListPage(t.Context(), backend.ListOptions{}); err != nil {
			t.Error(err)
		}
		if url := aws.urls()[len(aws.urls())-1]; !strings.HasPrefix(url, "https://bucket.s3.eu-central-1.amazonaws.com/?") {
			t.Errorf("with region %q the bucket is looked for at %s", region, url)
		}
	}
	t.Setenv("AWS_REGION", "ap-south-1")
	open(t, s3.Options{Bucket: "bucket", Transport: aws})
	if !slices.ContainsFunc(aws.urls(), func(u string) bool { return strings.Contains(u, "ap-south-1") }) {
		t.Error("the region of the environment is not used")
	}

	gone := &recorder{next: func(r *http.Request) *http.Response { return answer(r, 404, "") }}
	t.Setenv("AWS_REGION", "")
	failsToOpen(t, s3.Options{Bucket: "bucket", Transport: gone}, backend.ErrNoBucket)
}

func TestEndpointOfTheEnvironment(t *testing.T) {
	f := newFake(t)
	t.Setenv("AWS_ENDPOINT_URL", f.URL)
	b := open(t, s3.Options{Bucket: "bucket", Prefix: "100% ü"})
	defer b.Close()
	f.set(uploads)
	if _, err := b.Stat(t.Context(), "k"); err != nil || f.last().URL.Path != "/bucket/100% ü/k" {
		t.Errorf("%v, at %s", err, f.last().URL)
	}
	if got, want := b.Name(), "s3://bucket/100% ü?endpoint="+f.URL; got != want {
		t.Errorf("its name is %s, want %s", got, want)
	}
}

// A machine whose clock is wrong by a day can still be let in: the store's
// answers tell the time.
func TestClockOfTheStoreIsTaken(t *testing.T) {
	f := newFake(t)
	ahead := 24 * time.Hour
	f.set(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(ahead)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || now.Sub(signed).Abs() > 15*time.Minute {
			refuse(403, "RequestTimeTooSkewed")(w, r)
			return
		}
		say(`<ListBucketResult/>`)(w, r)
	})
	b := open(t, s3.Options{Bucket: "bucket", Endpoint: f.URL})
	if _, err := b.ListPage(t.Context(), backend.ListOptions{}); err != nil {
		t.Error(err)
	}
	f.set(refuse(403, "RequestTimeTooSkewed"))
	if _, err := s3.Open(t.Context(), s3.Options{Bucket: "bucket", Endpoint: f.URL}); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("a store that stays of that opinion: %v", err)
	}
}

func TestNameTellsTwoStoresApart(t *testing.T) {
	f := newFake(t)
	for _, prefix := range []string{"some/prefix", "/some/prefix/"} {
		if got, want := f.open(t, s3.Options{Prefix: prefix}).Name(), "s3://bucket/some/prefix?endpoint="+f.URL; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got, want := f.open(t, s3.Options{}).Name(), "s3://bucket?endpoint="+f.URL; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
