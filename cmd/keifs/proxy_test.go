package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// storyProxy stands between a mount and the S3 server. It passes every
// request, or refuses what changes the bucket, or lets it hang.
type storyProxy struct {
	*httptest.Server

	mu      sync.Mutex
	mode    string        // pass, refuse or hang
	only    string        // what is in the paths of the requests that it is about; empty: all
	changed chan struct{} // closed with the next change of the mode
	hanging chan struct{} // has one for a request that hangs
}

func newStoryProxy(server string) (*storyProxy, error) {
	target, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	p := &storyProxy{mode: "pass", changed: make(chan struct{}), hanging: make(chan struct{}, 1)}
	next := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the signature covers it
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && p.refuses(r) {
			http.Error(w, "", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
	return p, nil
}

// refuses waits while the mode is hang.
func (p *storyProxy) refuses(r *http.Request) bool {
	for {
		p.mu.Lock()
		mode, changed := p.mode, p.changed
		if !strings.Contains(r.URL.Path, p.only) {
			mode = "pass"
		}
		p.mu.Unlock()
		if mode != "hang" {
			return mode == "refuse"
		}
		select {
		case p.hanging <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return true
		}
	}
}

func (p *storyProxy) set(mode, only string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode, p.only = mode, only
	close(p.changed)
	p.changed = make(chan struct{})
	select {
	case <-p.hanging:
	default:
	}
}

// proxy MODE [PART], of the requests that have it in their path; or proxy
// hanging: waits until a request hangs.
func proxyCommand(ts *testscript.TestScript, _ bool, args []string) {
	p := ts.Value(proxyKey{}).(*storyProxy)
	if args[0] != "hanging" {
		p.set(args[0], strings.Join(args[1:], ""))
		return
	}
	select {
	case <-p.hanging:
	case <-time.After(30 * time.Second):
		ts.Fatalf("no request hangs")
	}
}

type proxyKey struct{}
