package fakegcs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// proxy passes requests on, and first looks at the conditions that the server
// ignores. One change at a time goes through: between the look and the change
// there is no other.
type proxy struct {
	server string
	next   http.Handler
	mu     sync.RWMutex
}

const api = "/storage/v1/b/" // the paths of buckets

var errNoBucket = errors.New("the specified bucket does not exist")

func newProxy(server string) *proxy {
	u, err := url.Parse(server)
	if err != nil {
		panic(err) // it is an address of the loopback interface
	}
	next := httputil.NewSingleHostReverseProxy(u)
	next.Transport = &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	return &proxy{server: server, next: next}
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/batch/storage/v1" {
		p.batch(w, r)
		return
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		p.mu.RLock()
		defer p.mu.RUnlock()
	} else {
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, api) && strings.Count(r.URL.Path[len(api):], "/") == 1 && strings.HasSuffix(r.URL.Path, "/o") {
		p.list(w, r)
		return
	}
	if status := p.check(r); status != 0 {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"code":%d,"message":%q}}`, status, http.StatusText(status))
		return
	}
	emptied := p.emptiesMetadata(r)
	p.next.ServeHTTP(w, r)
	if emptied != "" { // the server keeps the source's metadata unless there is other
		if req, err := http.NewRequest(http.MethodPut, p.server+emptied, strings.NewReader(`{"metadata":{}}`)); err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}
	}
}

// check returns the status of the refusal, 0 for none.
func (p *proxy) check(r *http.Request) int {
	path, query := r.URL.EscapedPath(), r.URL.Query()
	rest, ok := strings.CutPrefix(path, api)
	if !ok { // a read, by the XML API
		if r.Method == http.MethodGet && strings.Count(path, "/") >= 2 && !strings.HasPrefix(path, "/download/") {
			bucket, object, _ := strings.Cut(path[1:], "/")
			return p.refuse(api+bucket+"/o/"+object, r.Header.Get("X-Goog-If-Generation-Match"), r.Header.Get("X-Goog-If-Metageneration-Match"), http.StatusNotFound)
		}
		return 0
	}
	part := strings.Split(rest, "/") // bucket, "o", object, …
	switch {
	case len(part) == 3 && r.Method == http.MethodDelete:
		return p.refuse(path, query.Get("ifGenerationMatch"), query.Get("ifMetagenerationMatch"), http.StatusNotFound)
	case len(part) == 4 && part[3] == "compose":
		return p.refuse(strings.TrimSuffix(path, "/compose"), query.Get("ifGenerationMatch"), query.Get("ifMetagenerationMatch"), http.StatusPreconditionFailed)
	case len(part) == 8 && part[3] == "rewriteTo":
		source, target := api+strings.Join(part[:3], "/"), api+strings.Join(part[5:], "/")
		if status := p.refuse(source, query.Get("ifSourceGenerationMatch"), query.Get("ifSourceMetagenerationMatch"), http.StatusNotFound); status != 0 {
			return status
		}
		return p.refuse(target, query.Get("ifGenerationMatch"), query.Get("ifMetagenerationMatch"), http.StatusPreconditionFailed)
	}
	return 0
}

// refuse looks whether the object is the version that a condition names; "0"
// is its absence. Where it is absent against the condition, that is missing.
func (p *proxy) refuse(object, generation, metageneration string, missing int) int {
	if generation == "" && metageneration == "" {
		return 0
	}
	resp, err := http.Get(p.server + object)
	if err != nil {
		return http.StatusBadGateway
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		if generation == "0" {
			return 0
		}
		return missing
	}
	var now struct{ Generation, Metageneration string }
	if err := json.NewDecoder(resp.Body).Decode(&now); err != nil {
		return http.StatusBadGateway
	}
	if generation != "" && generation != now.Generation || metageneration != "" && metageneration != now.Metageneration {
		return http.StatusPreconditionFailed
	}
	return 0
}

// emptiesMetadata is the path of the target of a copy that describes it, and
// gives it no metadata.
func (p *proxy) emptiesMetadata(r *http.Request) string {
	_, target, ok := strings.Cut(r.URL.EscapedPath(), "/rewriteTo/")
	if !ok {
		return ""
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var described struct {
		ContentType string
		Metadata    map[string]string
	}
	if err != nil || json.Unmarshal(body, &described) != nil || described.ContentType == "" || len(described.Metadata) > 0 {
		return ""
	}
	return "/storage/v1/" + target
}

// batch makes one request of each part, so that each is checked.
func (p *proxy) batch(w http.ResponseWriter, r *http.Request) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	doc, err := io.ReadAll(r.Body) // all of it before the answer begins
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in, out := multipart.NewReader(bytes.NewReader(doc), params["boundary"]), multipart.NewWriter(w)
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+out.Boundary())
	defer out.Close()
	for {
		part, err := in.NextPart()
		if err != nil {
			return
		}
		one, err := http.ReadRequest(bufio.NewReader(part))
		if err != nil {
			return // an answer is missing then, which the client notices
		}
		one.Host = r.Host
		rec := httptest.NewRecorder()
		p.ServeHTTP(rec, one.WithContext(r.Context()))
		id := strings.Replace(part.Header.Get("Content-Id"), "<", "<response-", 1)
		to, err := out.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/http"}, "Content-Id": {id}})
		if err != nil {
			return
		}
		resp := rec.Result()
		resp.ContentLength = int64(rec.Body.Len())
		resp.Header.Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		resp.Write(to)
	}
}
