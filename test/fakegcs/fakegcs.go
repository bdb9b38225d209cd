// Package fakegcs runs fake-gcs-server for tests: a server with the API of
// Google Cloud Storage that keeps its buckets in memory, in a process of its
// own.
//
// The server ignores the conditions of copies, deletions, compositions and
// reads, keeps the metadata of a copy that shall have none, and counts no
// prefixes on a page. Before it stands a proxy that does what was asked for, as
// Google documents it: [Server.Endpoint] is the proxy, [Server.Bare] the server.
package fakegcs

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/keifs/keifs/test/server"
)

var program = server.Program{
	Name: "fake-gcs-server", Package: "github.com/fsouza/fake-gcs-server", Version: "v1.56.1", Env: "KEIFS_TEST_FAKEGCS",
}

// Server is a running server.
type Server struct {
	*server.Process
	Endpoint string // http://127.0.0.1:PORT of the proxy
	Bare     string // of the server behind it
}

var shared server.Shared[*Server]

// Shared returns the one server of this test binary, and starts it for the
// first caller. It ends with the binary, however that ends.
func Shared(t testing.TB) *Server {
	t.Helper()
	return shared.Get(t, start)
}

func start(t testing.TB) *Server {
	t.Helper()
	p := server.Start(t, program, func(string) (server.Command, error) {
		return server.Command{Args: []string{
			"-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", "0", "-public-host", "127.0.0.1", "-log-level", "warn",
		}}, nil
	})
	s := &Server{Process: p, Bare: "http://" + p.Addr}
	// It lives as long as the server: to the end of the binary.
	s.Endpoint = httptest.NewServer(newProxy(s.Bare)).URL
	return s
}

// NewBucket makes an empty bucket of a new name. It ends with the server.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text()[:12])
	s.call(t, http.MethodPost, "/storage/v1/b?project=test", fmt.Sprintf(`{"name":%q}`, name))
	return name
}

// Put stores an object as another tool would.
func (s *Server) Put(t testing.TB, bucket, key string, data []byte) {
	t.Helper()
	s.call(t, http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name="+url.QueryEscape(key), string(data))
}

// Get returns the content of an object that must be there.
func (s *Server) Get(t testing.TB, bucket, key string) []byte {
	t.Helper()
	return s.call(t, http.MethodGet, "/storage/v1/b/"+bucket+"/o/"+url.PathEscape(key)+"?alt=media", "")
}

// List returns the keys that begin with prefix, in order.
func (s *Server) List(t testing.TB, bucket, prefix string) []string {
	t.Helper()
	var list struct{ Items []struct{ Name string } }
	if err := json.Unmarshal(s.call(t, http.MethodGet, "/storage/v1/b/"+bucket+"/o?prefix="+url.QueryEscape(prefix), ""), &list); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range list.Items {
		keys = append(keys, o.Name)
	}
	return keys
}

func (s *Server) call(t testing.TB, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Bare+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: HTTP %d, %v: %s", method, path, resp.StatusCode, err, data)
	}
	return data
}
