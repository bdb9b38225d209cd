package e2e

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// faultProxy stands between a mount and the S3 server and fails requests as
// its rule says. What the mount's own fault decorator cannot show, it does:
// the real client, the real wire.
type faultProxy struct {
	Endpoint string
	rule     atomic.Pointer[faultRule]
	hits     atomic.Int64 // requests that the rule failed
	passed   atomic.Pointer[func(r *http.Request)]
}

// faultRule returns the status to answer with, 0 to let the request pass, or
// cutBody to break the connection in the middle of the answer's body.
type faultRule func(r *http.Request) int

const cutBody = -1

func newFaultProxy(t *testing.T, upstream string) *faultProxy {
	t.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	p := &faultProxy{}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the signature covers it
		},
		ErrorLog: log.New(io.Discard, "", 0), // of clients that are killed
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := 0
		if rule := p.rule.Load(); rule != nil {
			status = (*rule)(r)
		}
		if status != 0 {
			p.hits.Add(1)
		}
		switch status {
		case 0:
			forward.ServeHTTP(w, r)
			if passed := p.passed.Load(); passed != nil {
				(*passed)(r)
			}
		case cutBody:
			forward.ServeHTTP(&cutWriter{ResponseWriter: w}, r)
		default:
			code := map[int]string{403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}[status]
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>injected</Message></Error>`, code)
		}
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	p.Endpoint = "http://" + l.Addr().String()
	return p
}

// fail sets the rule; nil ends all failures.
func (p *faultProxy) fail(rule faultRule) {
	p.hits.Store(0)
	if rule == nil {
		p.rule.Store(nil)
		return
	}
	p.rule.Store(&rule)
}

// tell calls fn with each request that was passed on and answered.
func (p *faultProxy) tell(fn func(r *http.Request)) { p.passed.Store(&fn) }

// cutWriter passes half of the first write and then breaks the connection.
type cutWriter struct{ http.ResponseWriter }

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) > 1 {
		w.ResponseWriter.Write(p[:len(p)/2])
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
	}
	panic(http.ErrAbortHandler)
}
