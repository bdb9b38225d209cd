package s3_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/s3"
)

// fake is a server whose answers a test makes up. It is not S3: it answers
// what Open asks, and then whatever it is told.
type fake struct {
	URL string

	mu       sync.Mutex
	answer   http.HandlerFunc // to everything that Open does not ask
	requests []*http.Request  // those that answer got
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.URL = server.URL
	isolate(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	answer := f.answer
	if answer != nil {
		f.requests = append(f.requests, r)
	}
	f.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case r.URL.Query().Has("versioning"):
		io.WriteString(w, `<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>`)
	default:
		io.WriteString(w, `<ListBucketResult><EncodingType>url</EncodingType></ListBucketResult>`)
	}
}

// set makes up the answers from now on.
func (f *fake) set(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer, f.requests = answer, nil
}

// last is the last request that was answered.
func (f *fake) last() *http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[len(f.requests)-1]
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// open opens the bucket "bucket" with answers that are good.
func (f *fake) open(t *testing.T, opts s3.Options) backend.Backend {
	t.Helper()
	f.set(nil)
	opts.Bucket, opts.Endpoint = "bucket", f.URL
	b := open(t, opts)
	t.Cleanup(func() { b.Close() })
	return b
}

// refuse answers with an error of S3.
func refuse(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		if code != "" && r.Method != http.MethodHead {
			fmt.Fprintf(w, `<Error><Code>%s</Code><Message>words of the store</Message></Error>`, code)
		}
	}
}

// say answers with a body.
func say(body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for _, h := range header {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		io.WriteString(w, body)
	}
}
