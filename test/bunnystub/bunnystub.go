// Package bunnystub is a stand-in for Bunny Storage in tests, since there is no
// server of it to run: the HTTP API as Bunny documents it, and DESCRIBE as
// Bunny's own libraries use it. What it does not know fails the test: a header,
// a method, a query.
//
// It has real directories: an upload makes them, they stay when they are
// empty, and the removal of one takes everything in it.
package bunnystub

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a running stub with one zone.
type Server struct {
	Endpoint string
	Zone     string
	Key      string

	t  testing.TB
	mu sync.Mutex

	nodes    map[string]*node // by path in the zone; "" is its root
	requests []string         // method and path in the zone
	lists    bool             // a directory that is not there lists as empty
	nested   bool             // a file and a directory can have one name
	before   func(r *http.Request) (status int)
}

// node is a file or, with children by its path alone, a directory.
type node struct {
	dir     bool
	data    []byte
	sum     string
	kind    string
	changed time.Time
}

// Start starts a stub that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{Zone: "test-zone", Key: "test-zone-password", t: t, nodes: map[string]*node{"/": {dir: true}}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.Endpoint = server.URL
	return s
}

// ListMissing has the listing of a directory that is not there be empty, where
// it is not found otherwise: Bunny documents neither.
func (s *Server) ListMissing() { s.lists = true }

// Nest lets a file and a directory have one name. Bunny does not document it.
func (s *Server) Nest() { s.nested = true }

// Before is called before each request; a status that is not 0 is the answer.
func (s *Server) Before(fn func(r *http.Request) (status int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = fn
}

// Requests returns the requests since the last call, as "GET /dir/a".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = nil
	return requests
}

// Paths returns what the zone has, sorted; directories end in '/'.
func (s *Server) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var paths []string
	for p := range s.nodes {
		if p != "/" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// Put makes a file as another tool does, and Mkdir a directory.
func (s *Server) Put(p, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(p, []byte(data), "text/plain")
}

// Mkdir makes a directory; p ends in '/'.
func (s *Server) Mkdir(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mkdir(p)
}

// Get returns the content of a file.
func (s *Server) Get(p string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[p]; n != nil {
		return string(n.data)
	}
	return "(nothing)"
}

func (s *Server) put(p string, data []byte, kind string) {
	s.mkdir(path.Dir(p))
	s.nodes[p] = &node{data: data, sum: checksum(data), kind: kind, changed: time.Now()}
}

// mkdir makes a directory and those above it.
func (s *Server) mkdir(p string) {
	for p = path.Clean(p); p != "/"; p = path.Dir(p) {
		if s.nodes[p+"/"] == nil {
			s.nodes[p+"/"] = &node{dir: true, changed: time.Now()}
		}
	}
}

// headers are those that a request may have, beside those of HTTP itself.
func (s *Server) checkRequest(r *http.Request) {
	allowed := map[string][]string{
		"GET":      {"Accept", "Range"},
		"DESCRIBE": {"Accept"},
		"DELETE":   {"Accept"},
		"PUT":      {"Checksum", "Content-Type", "Content-Length"},
	}
	names, ok := allowed[r.Method]
	if !ok {
		s.t.Errorf("the API has no method %s (%s)", r.Method, r.URL)
	}
	for name := range r.Header {
		if !slices.Contains(names, name) && !slices.Contains([]string{"Accesskey", "User-Agent", "Accept-Encoding"}, name) {
			s.t.Errorf("the API has no header %s for %s", name, r.Method)
		}
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		s.t.Errorf("the API has no query: %s", r.URL)
	}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.checkRequest(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if status := before(r); status != 0 {
			say(w, status, "as told")
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := strings.CutPrefix(r.URL.Path, "/"+s.Zone+"/")
	if !ok || r.Header.Get("AccessKey") != s.Key {
		say(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	p = "/" + p
	s.requests = append(s.requests, r.Method+" "+p)
	if strings.Contains(p, "//") || slices.ContainsFunc(strings.Split(p, "/"), func(c string) bool { return c == "." || c == ".." }) {
		s.t.Errorf("no path of a zone: %s %q", r.Method, p)
	}
	switch r.Method {
	case http.MethodPut:
		s.servePut(w, r, p, body)
	case "DESCRIBE":
		s.describe(w, p)
	case http.MethodDelete:
		s.remove(w, p)
	case http.MethodGet:
		if strings.HasSuffix(p, "/") {
			s.list(w, p)
		} else {
			s.get(w, r, p)
		}
	}
}

func (s *Server) servePut(w http.ResponseWriter, r *http.Request, p string, body []byte) {
	if strings.HasSuffix(p, "/") {
		s.t.Errorf("not documented: PUT %s", p)
	}
	if r.ContentLength != int64(len(body)) {
		s.t.Errorf("PUT %s of %d bytes announces %d", p, len(body), r.ContentLength)
	}
	if sum := r.Header.Get("Checksum"); sum != "" && sum != checksum(body) {
		say(w, http.StatusBadRequest, "Checksum and file contents mismatched")
		return
	}
	if !s.nested {
		taken := s.nodes[p+"/"] != nil
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			taken = taken || s.nodes[dir] != nil
		}
		if taken {
			say(w, http.StatusBadRequest, "Invalid path")
			return
		}
	}
	s.put(p, body, r.Header.Get("Content-Type"))
	say(w, http.StatusCreated, "File uploaded.")
}

func (s *Server) describe(w http.ResponseWriter, p string) {
	n := s.nodes[p]
	if n == nil {
		n = s.nodes[p+"/"]
	}
	if n == nil {
		say(w, http.StatusNotFound, "Object Not Found")
		return
	}
	answer(w, http.StatusOK, s.record(p, n))
}

// remove takes a directory with everything in it, whether or not its path ends
// in a slash.
func (s *Server) remove(w http.ResponseWriter, p string) {
	dir := strings.TrimSuffix(p, "/") + "/"
	switch {
	case s.nodes[p] != nil && !s.nodes[p].dir:
		delete(s.nodes, p)
		say(w, http.StatusOK, "File deleted successfully.")
	case dir == "/":
		s.t.Error("the whole zone is deleted")
	case s.nodes[dir] != nil:
		for below := range s.nodes {
			if strings.HasPrefix(below, dir) {
				if !s.nodes[below].dir {
					s.t.Errorf("%s is deleted along with %s", below, dir)
				}
				delete(s.nodes, below)
			}
		}
		say(w, http.StatusOK, "Directory deleted successfully.")
	default:
		say(w, http.StatusNotFound, "Object Not Found")
	}
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, p string) {
	n := s.nodes[p]
	if n == nil {
		say(w, http.StatusNotFound, "Object Not Found")
		return
	}
	w.Header().Set("Content-Type", n.kind)
	from, to := 0, len(n.data)
	if header := r.Header.Get("Range"); header != "" {
		first, last, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
		var err error
		if from, err = strconv.Atoi(first); err != nil {
			s.t.Errorf("range %q", header)
		}
		if end, err := strconv.Atoi(last); err == nil {
			to = min(to, end+1)
		}
		if from >= len(n.data) {
			say(w, http.StatusRequestedRangeNotSatisfiable, "Range")
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(n.data)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(to-from))
	if to-from < len(n.data) {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(n.data[from:to])
}

func (s *Server) list(w http.ResponseWriter, p string) {
	if s.nodes[p] == nil && !s.lists {
		say(w, http.StatusNotFound, "Object Not Found")
		return
	}
	records := []record{}
	for below, n := range s.nodes { // in no order
		name, ok := strings.CutPrefix(below, p)
		if ok && name != "" && !strings.Contains(strings.TrimSuffix(name, "/"), "/") {
			records = append(records, s.record(below, n))
		}
	}
	answer(w, http.StatusOK, records)
}

// record is an entry of a listing.
type record struct {
	GUID            string `json:"Guid"`
	StorageZoneName string
	Path            string
	ObjectName      string
	Length          int
	LastChanged     string
	ServerID        int `json:"ServerId"`
	ArrayNumber     int
	IsDirectory     bool
	UserID          string `json:"UserId"`
	ContentType     string
	DateCreated     string
	StorageZoneID   int `json:"StorageZoneId"`
	Checksum        *string
	ReplicatedZones *string
}

func (s *Server) record(p string, n *node) record {
	dir, name := path.Split(strings.TrimSuffix(p, "/"))
	changed := n.changed.UTC().Format("2006-01-02T15:04:05.000")
	r := record{
		GUID: fmt.Sprintf("%x", sha256.Sum256([]byte(p)))[:36], StorageZoneName: s.Zone, Path: "/" + s.Zone + dir, ObjectName: name,
		Length: len(n.data), LastChanged: changed, DateCreated: changed, IsDirectory: n.dir, ContentType: n.kind,
	}
	if !n.dir {
		r.Checksum = &n.sum
	}
	return r
}

func checksum(data []byte) string { return fmt.Sprintf("%X", sha256.Sum256(data)) }

func say(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"HttpCode": status, "Message": message})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
