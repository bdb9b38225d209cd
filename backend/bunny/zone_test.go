package bunny_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/bunny"
	"github.com/keifs/keifs/test/bunnystub"
)

func put(t *testing.T, b backend.Backend, key, data string) backend.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, backend.Bytes([]byte(data)), backend.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func remove(t *testing.T, b backend.Backend, key string) {
	t.Helper()
	if err := b.Delete(t.Context(), key, backend.Cond{}); err != nil {
		t.Errorf("%s: %v", key, err)
	}
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The store takes everything below a directory whose path is deleted, with or
// without a slash. The stub fails a test where that takes a file along.
func TestOnlyFilesAndEmptyDirectoriesAreDeleted(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	s.Put("/a/b/c", "theirs")
	s.Requests()

	remove(t, b, "a")
	remove(t, b, "a/b")
	same(t, s.Requests(), "DESCRIBE /a", "DESCRIBE /a/b")
	remove(t, b, "a/b/")
	same(t, s.Requests(), "DESCRIBE /a/b/"+bunny.Marker, "GET /a/b/")
	same(t, s.Paths(), "/a/", "/a/b/", "/a/b/c")

	remove(t, b, "a/b/c")
	same(t, s.Requests(), "DESCRIBE /a/b/c", "DELETE /a/b/c")
	same(t, s.Paths(), "/a/", "/a/b/") // a file's removal takes no directory along
	put(t, b, "a/", "")
	same(t, s.Requests(), "PUT /a/"+bunny.Marker)
	remove(t, b, "a/")
	same(t, s.Requests(), "DESCRIBE /a/"+bunny.Marker, "DELETE /a/"+bunny.Marker, "GET /a/", "GET /a/b/", "DELETE /a/")
	same(t, s.Paths())
}

func TestAnEmptyDirectoryIsNotShown(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	s.Mkdir("/empty/more/")
	s.Put("/full/deep/file", "x")
	s.Put("/full/"+bunny.Marker, "")
	s.Put("/"+bunny.Marker, "of nobody")
	for _, delimited := range []bool{true, false} {
		page, err := b.ListPage(t.Context(), backend.ListOptions{Delimited: delimited})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, o := range page.Objects {
			keys = append(keys, o.Key)
		}
		if delimited {
			same(t, keys)
			same(t, page.Prefixes, "full/")
		} else {
			same(t, keys, "full/", "full/deep/file")
		}
	}
}

func TestAnEmptyDirectoryIsNotInTheWayOfAFile(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	s.Mkdir("/a/empty/")
	put(t, b, "a", "x")
	same(t, s.Paths(), "/a")
	s.Put("/b/c", "theirs")
	if _, err := b.Put(t.Context(), "b", backend.Bytes(nil), backend.PutOptions{}); !errors.Is(err, backend.ErrBadKey) {
		t.Error(err)
	}
	same(t, s.Paths(), "/a", "/b/", "/b/c")
}

// TestNothingIsLostBesideTheRemovalOfADirectory puts files into a directory
// while it is removed, over and over: each ends up there. The stub fails it
// where a removal takes a file along.
func TestNothingIsLostBesideTheRemovalOfADirectory(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	for round := range 20 {
		var wg sync.WaitGroup
		key := fmt.Sprintf("dir/sub/%d", round)
		wg.Go(func() { put(t, b, key, "x") })
		for _, dir := range []string{"dir/", "dir/sub/", "dir/"} {
			wg.Go(func() { remove(t, b, dir) })
		}
		wg.Wait()
		if got := s.Get("/" + key); got != "x" {
			t.Fatalf("round %d: %q", round, got)
		}
		remove(t, b, key)
	}
}

// TestABodyIsOfOneVersion changes the object between the question for it and
// its content, or while the content is read.
func TestABodyIsOfOneVersion(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	for _, later := range []string{"twotwo", "longer than that"} {
		for _, opts := range []backend.GetOptions{{}, {Length: 2}, {Offset: 1}} {
			was := put(t, b, "a", "oneone")
			opts.IfMatch = was.ETag
			s.Before(func(r *http.Request) int {
				if r.Method == http.MethodGet {
					s.Put("/a", later)
				}
				return 0
			})
			err := b.Get(t.Context(), "a", opts, func(_ backend.Info, body io.Reader) error {
				_, err := io.ReadAll(body)
				return err
			})
			s.Before(nil)
			if !errors.Is(err, backend.ErrTransient) {
				t.Errorf("%+v, then %q: %v", opts, later, err)
			}
			err = b.Get(t.Context(), "a", opts, func(backend.Info, io.Reader) error { return nil })
			if !errors.Is(err, backend.ErrPrecondition) {
				t.Errorf("once more: %v", err)
			}
		}
	}
}

func TestEachRequestIsOneOfTheAPI(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{Prefix: "p"})
	put(t, b, "a b/c#d?", "content")
	same(t, s.Requests(), "GET /p/", "PUT /p/a b/c#d?")
	if data, _, err := backend.ReadAll(t.Context(), b, "a b/c#d?", 100); err != nil || string(data) != "content" {
		t.Errorf("%q, %v", data, err)
	}
	same(t, s.Requests(), "DESCRIBE /p/a b/c#d?", "GET /p/a b/c#d?") // the checksum of the whole is enough
	if err := b.Get(t.Context(), "a b/c#d?", backend.GetOptions{Offset: 3, Length: 2}, func(_ backend.Info, body io.Reader) error {
		data, err := io.ReadAll(body)
		if string(data) != "te" {
			t.Errorf("%q", data)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	same(t, s.Requests(), "DESCRIBE /p/a b/c#d?", "GET /p/a b/c#d?", "DESCRIBE /p/a b/c#d?")
	if _, err := b.ListPage(t.Context(), backend.ListOptions{Prefix: "a b/"}); err != nil {
		t.Error(err)
	}
	same(t, s.Requests(), "GET /p/a b/")
	if b.Name() != "bunny://test-zone/p?endpoint="+s.Endpoint {
		t.Error(b.Name())
	}
}

func TestAnswersBecomeErrors(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	for status, want := range map[int]error{
		401: backend.ErrCredentials, 403: backend.ErrPermission, 404: backend.ErrNotExist, 400: backend.ErrBadKey, 413: backend.ErrTooLarge,
		414: backend.ErrBadKey, 429: backend.ErrThrottled, 503: backend.ErrThrottled, 500: backend.ErrTransient, 502: backend.ErrTransient,
		405: backend.ErrUnsupported, 507: backend.ErrNoSpace, 302: backend.ErrIO, 409: backend.ErrIO,
	} {
		s.Before(func(*http.Request) int { return status })
		_, err := b.Stat(t.Context(), "a")
		for _, kind := range backend.Sentinels() {
			if errors.Is(err, kind) != (kind == want) {
				t.Errorf("%d: %v; %q: %v", status, err, kind, kind == want)
			}
		}
		if strings.Contains(err.Error(), s.Key) {
			t.Errorf("%d tells the key: %v", status, err)
		}
	}
}

func TestConditionsAreRefusedAndNotIgnored(t *testing.T) {
	s := bunnystub.Start(t)
	b := open(t, s, bunny.Options{})
	info := put(t, b, "a", "one")
	for _, cond := range []backend.Cond{{IfAbsent: true}, {IfMatch: info.ETag}} {
		if _, err := b.Put(t.Context(), "a", backend.Bytes(nil), backend.PutOptions{Cond: cond}); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("%+v: %v", cond, err)
		}
	}
	if err := b.Delete(t.Context(), "a", backend.Cond{IfMatch: info.ETag}); !errors.Is(err, backend.ErrUnsupported) {
		t.Error(err)
	}
	if got := s.Get("/a"); got != "one" {
		t.Errorf("%q", got)
	}
	if c := b.Caps(); c != (backend.Caps{MaxKey: 1024}) {
		t.Errorf("%+v", c)
	}
}

func TestOpenFailsAtOnce(t *testing.T) {
	t.Setenv(bunny.KeyEnv, "")
	t.Setenv(bunny.RegionEnv, "")
	s := bunnystub.Start(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		opts bunny.Options
		want error
	}{
		{bunny.Options{Zone: s.Zone, Endpoint: s.Endpoint}, backend.ErrCredentials},
		{bunny.Options{Zone: s.Zone, Key: "wrong", Endpoint: s.Endpoint}, backend.ErrCredentials},
		{bunny.Options{Zone: "other", Key: s.Key, Endpoint: s.Endpoint}, backend.ErrCredentials},
		{bunny.Options{Zone: s.Zone, Key: s.Key, Endpoint: "http://" + closed.Addr().String()}, backend.ErrUnreachable},
		{bunny.Options{Zone: s.Zone, Key: s.Key, Endpoint: "http://user:pw@host"}, backend.ErrInvalid},
		{bunny.Options{Zone: s.Zone, Key: s.Key, Endpoint: "ftp://host"}, backend.ErrInvalid},
		{bunny.Options{Zone: s.Zone, Key: s.Key, Region: "evil.example/"}, backend.ErrInvalid},
		{bunny.Options{Zone: s.Zone, Key: s.Key, Prefix: "a/../b"}, backend.ErrInvalid},
		{bunny.Options{Key: s.Key}, backend.ErrInvalid},
		{bunny.Options{Zone: "a/b", Key: s.Key}, backend.ErrInvalid},
	} {
		b, err := bunny.Open(t.Context(), c.opts)
		if err == nil {
			b.Close()
		}
		if !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want %q", c.opts, err, c.want)
		}
	}
}

// seen is a transport that only looks where a request goes.
type seen struct{ host, key string }

func (s *seen) RoundTrip(r *http.Request) (*http.Response, error) {
	s.host, s.key = r.URL.Scheme+"://"+r.URL.Host, r.Header.Get("AccessKey")
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("[]")), Request: r}, nil
}

func TestTheRegionIsTheHost(t *testing.T) {
	t.Setenv(bunny.KeyEnv, "secret")
	for _, c := range []struct{ env, flag, want string }{
		{"", "", "https://storage.bunnycdn.com"},
		{"", "DE", "https://storage.bunnycdn.com"},
		{"ny", "", "https://ny.storage.bunnycdn.com"},
		{"ny", "syd", "https://syd.storage.bunnycdn.com"},
	} {
		t.Setenv(bunny.RegionEnv, c.env)
		s := &seen{}
		b, err := bunny.Open(t.Context(), bunny.Options{Zone: "z", Region: c.flag, Transport: s})
		if err != nil {
			t.Fatal(err)
		}
		if s.host != c.want || s.key != "secret" || b.Name() != "bunny://z" {
			t.Errorf("%+v: %+v, %s", c, s, b.Name())
		}
	}
}
