// Package backendtest is the conformance suite that every provider and every
// decorator passes. Where [backend.Caps] says that a bucket lacks something,
// the suite holds the bucket to the documented fallback instead.
//
// It runs against a bucket that others use as well, on a real server too: each
// test works below a prefix of its own, and removes what it stored.
package backendtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
)

// Run holds what open returns to the contract of package backend. Each test
// opens one, and closes it. The tests named by except are left out: for a server
// that is known to deviate, which a test of its own shows.
func Run(t *testing.T, open func(t *testing.T) backend.Backend, except ...string) {
	for _, test := range []struct {
		name string
		run  func(*tester)
	}{
		{"RoundTrip", roundTrip},
		{"MissingObject", missingObject},
		{"Overwrite", overwrite},
		{"Ranges", ranges},
		{"GetIfMatch", getIfMatch},
		{"CallbackErrorIsReturnedAsItIs", callbackError},
		{"CallbackMayStopEarly", callbackStopsEarly},
		{"FailingSourceStoresNothing", failingSource},
		{"Metadata", metadata},
		{"FolderMarkers", folderMarkers},
		{"OddKeys", oddKeys},
		{"BadKeys", badKeys},
		{"ObjectAndPrefix", objectAndPrefix},
		{"CancelledContext", cancelledContext},
		{"WholeOrNotAtAll", wholeOrNotAtAll},

		{"ConditionalCreate", conditionalCreate},
		{"ConditionalOverwrite", conditionalOverwrite},
		{"ConditionalDelete", conditionalDelete},
		{"ConditionalBatch", conditionalBatch},
		{"MalformedConditions", malformedConditions},

		{"ListOrderAndPaging", listOrder},
		{"ListAfterAKey", listAfter},
		{"ListPrefixIsAString", listPrefix},
		{"ListManyPrefixes", listManyPrefixes},
		{"ListMoreThanOnePage", listManyPages},
		{"ListSeesEveryWrite", listIsStrong},

		{"Copy", copies},
		{"CopyReplacesMetadata", copyMetadata},
		{"CopyConditions", copyConditions},
		{"Assembly", assembly},
		{"AssemblyConditions", assemblyConditions},
		{"AssemblyErrors", assemblyErrors},
		{"BatchDelete", batchDelete},
		{"Versions", versions},
		{"Rename", rename},
	} {
		if slices.Contains(except, test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			b := open(t)
			if b.Name() == "" {
				t.Error("the backend has no name")
			}
			test.run(newTester(t, b))
		})
	}
}

// tester is one test with its bucket and its prefix there.
type tester struct {
	*testing.T
	b      backend.Backend
	caps   backend.Caps
	prefix string // ends in '/'
	ctx    context.Context
}

func newTester(t *testing.T, b backend.Backend) *tester {
	_, name, _ := strings.Cut(t.Name(), "/")
	s := &tester{T: t, b: b, caps: b.Caps(), ctx: t.Context()}
	s.prefix = fmt.Sprintf("keifs-test-%s/%s/", rand.Text()[:8], name[strings.LastIndexByte(name, '/')+1:])
	t.Cleanup(func() {
		s.removeAll(context.Background()) // that of the test has ended
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// removeAll removes what the test has stored.
func (s *tester) removeAll(ctx context.Context) {
	var all []backend.Deletion
	for info, err := range backend.ListRecursive(ctx, s.b, s.prefix) {
		if err != nil {
			s.Errorf("cleaning up: %v", err)
			return
		}
		all = append(all, backend.Deletion{Key: info.Key})
	}
	batch, ok := backend.As[backend.BatchDeleter](s.b)
	for part := range slices.Chunk(all, 1000) {
		if ok {
			errs, err := batch.DeleteBatch(ctx, part)
			if err = errors.Join(append(errs, err)...); err != nil {
				s.Errorf("cleaning up: %v", err)
			}
			continue
		}
		for _, d := range part {
			if err := s.b.Delete(ctx, d.Key, backend.Cond{}); err != nil {
				s.Errorf("cleaning up: %v", err)
			}
		}
	}
}

// key is a key of this test.
func (s *tester) key(name string) string { return s.prefix + name }

func (s *tester) put(name string, data []byte, opts ...backend.PutOptions) backend.Info {
	s.Helper()
	var o backend.PutOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	info, err := s.b.Put(s.ctx, s.key(name), backend.Bytes(data), o)
	if err != nil {
		s.Fatalf("put: %v", err)
	}
	return info
}

func (s *tester) get(name string) ([]byte, backend.Info) {
	s.Helper()
	data, info, err := read(s.ctx, s.b, s.key(name), backend.GetOptions{})
	if err != nil {
		s.Fatalf("get: %v", err)
	}
	return data, info
}

// holds checks the content of an object.
func (s *tester) holds(name string, want []byte) {
	s.Helper()
	if got, _ := s.get(name); !bytes.Equal(got, want) {
		s.Errorf("%s holds %s, want %s", name, brief(got), brief(want))
	}
}

// absent checks that there is no such object, in a listing either.
func (s *tester) absent(name string) {
	s.Helper()
	if _, err := s.b.Stat(s.ctx, s.key(name)); !errors.Is(err, backend.ErrNotExist) {
		s.Errorf("stat %s: %v, want ErrNotExist", name, err)
	}
	if !s.caps.StrongList {
		return
	}
	for _, key := range s.list(backend.ListOptions{Prefix: s.key(name)}) {
		if key == s.key(name) {
			s.Errorf("%s is listed", name)
		}
	}
}

// fails checks that err is of the kind, and no other.
func (s *tester) fails(what string, err, kind error) {
	s.Helper()
	if !errors.Is(err, kind) {
		s.Errorf("%s: %v, want %q", what, err, kind)
		return
	}
	for _, other := range backend.Sentinels() {
		if other != kind && errors.Is(err, other) {
			s.Errorf("%s: %v is %q as well as %q", what, err, kind, other)
		}
	}
}

// list fetches all pages and returns objects and prefixes, in the order of
// the pages, merged as List does.
func (s *tester) list(opts backend.ListOptions) []string {
	s.Helper()
	var keys []string
	for pages := 0; ; pages++ {
		page, err := s.b.ListPage(s.ctx, opts)
		if err != nil {
			s.Fatalf("list %+v: %v", opts, err)
		}
		if n := len(page.Objects) + len(page.Prefixes); opts.Limit > 0 && n > opts.Limit {
			s.Errorf("list %+v: %d entries", opts, n)
		}
		if page.Date.IsZero() && len(page.Objects) > 0 {
			s.Errorf("list %+v: the store does not tell what time it is", opts)
		}
		keys = append(keys, merge(page)...)
		if page.Next == "" {
			return keys
		}
		if pages > 10000 || page.Next == opts.Token {
			s.Fatalf("list %+v: does not end", opts)
		}
		opts.Token = page.Next
	}
}

func (s *tester) equal(what string, got, want []string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Errorf("%s: %q, want %q", what, got, want)
	}
}

func merge(page backend.Page) []string {
	var keys []string
	objects, prefixes := page.Objects, page.Prefixes
	for len(objects)+len(prefixes) > 0 {
		if len(prefixes) == 0 || len(objects) > 0 && objects[0].Key < prefixes[0] {
			keys, objects = append(keys, objects[0].Key), objects[1:]
		} else {
			keys, prefixes = append(keys, prefixes[0]), prefixes[1:]
		}
	}
	return keys
}

func read(ctx context.Context, b backend.Backend, key string, opts backend.GetOptions) (data []byte, info backend.Info, err error) {
	err = b.Get(ctx, key, opts, func(i backend.Info, body io.Reader) error {
		var err error
		info = i
		data, err = io.ReadAll(body)
		return err
	})
	return data, info, err
}

// content is n bytes that depend on seed.
func content(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := mathrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(data)
	return data
}

func brief(data []byte) string {
	if len(data) > 32 {
		return fmt.Sprintf("%q… (%d bytes)", data[:32], len(data))
	}
	return fmt.Sprintf("%q", data)
}

// race starts n calls at once and returns their errors.
func race(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWinner checks that one call succeeded and the others met the condition,
// and returns which.
func (s *tester) oneWinner(errs []error) int {
	s.Helper()
	winner := -1
	for i, err := range errs {
		switch {
		case err != nil:
			s.fails("a loser", err, backend.ErrPrecondition)
		case winner >= 0:
			s.Errorf("%d and %d have both won", winner, i)
		default:
			winner = i
		}
	}
	if winner < 0 {
		s.Fatal("nobody has won")
	}
	return winner
}
