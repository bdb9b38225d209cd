package store

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/mem"
)

func TestAProbeSeesWhatTheBucketSays(t *testing.T) {
	all := map[string]mem.Options{
		"all": {}, "versions": {Versions: true},
		"no creation":          {Caps: func(c *backend.Caps) { c.CondCreate = false }},
		"ignored creation":     {Caps: func(c *backend.Caps) { c.CondCreate = false }, IgnoreConds: true},
		"ignored overwriting":  {Caps: func(c *backend.Caps) { c.CondOverwrite = false }, IgnoreConds: true},
		"ignored deletion":     {Caps: func(c *backend.Caps) { c.CondDelete = false }, IgnoreConds: true},
		"ignored batches":      {Caps: func(c *backend.Caps) { c.CondBatch = false }, IgnoreConds: true},
		"no batches":           {Caps: func(c *backend.Caps) { c.CondBatch = false }},
		"ignored copies":       {Caps: func(c *backend.Caps) { c.CondCopy = false }, IgnoreConds: true},
		"ignored assemblies":   {Caps: func(c *backend.Caps) { c.CondAssemble = false }, IgnoreConds: true},
		"no metadata":          {Caps: func(c *backend.Caps) { c.Metadata = false }},
		"no nesting":           {Caps: func(c *backend.Caps) { c.ObjectPrefix = false }},
		"no copies":            {Caps: func(c *backend.Caps) { c.Copy, c.CondCopy = false, false }},
		"plain":                {Plain: true, Caps: func(c *backend.Caps) { c.CondCopy, c.CondAssemble = false, false }},
		"no conditions at all": {Caps: func(c *backend.Caps) { *c = backend.Caps{StrongList: true, ObjectPrefix: true, MaxKey: 1024} }},
	}
	buckets := map[string]backend.Backend{}
	for name, opts := range all {
		buckets[name] = mem.New("", opts)
	}
	dir, err := file.Open(t.TempDir(), file.Options{})
	ok(t, err)
	defer dir.Close()
	buckets["file"] = dir
	for name, raw := range buckets {
		b := benchOver(t, raw, Options{})
		got, err := b.Probe(t.Context())
		if err != nil || got != raw.Caps() {
			t.Errorf("%s:\n%+v, %v, want\n%+v", name, got, err, raw.Caps())
		}
		same(t, b.keys(), []string{})
	}
}

// unprobed opens a store that does not know its bucket yet.
func unprobed(t *testing.T, opts Options, rules ...fault.Rule) *bench {
	t.Helper()
	b := newBench(t, mem.Options{}, Options{})
	b.in.Add(rules...)
	opts.Host = "host"
	s, err := Open(t.Context(), b.in.Wrap(b.raw), opts)
	ok(t, err)
	b.Store = s
	b.in.ResetRequests()
	return b
}

func TestABucketIsProbedOnceBeforeTheFirstChange(t *testing.T) {
	var mu sync.Mutex
	told := 0
	b := unprobed(t, Options{Probed: func(c backend.Caps) {
		mu.Lock()
		defer mu.Unlock()
		told++
		if !c.CondCreate {
			t.Errorf("%+v", c)
		}
	}})
	b.put("main/f", "x")
	_, err := b.Lookup(t.Context(), b.path("f"))
	ok(t, err)
	b.names("")
	if _, err := b.read(b.path("f"), "", 0, 0); err != nil {
		t.Error(err)
	}
	for _, r := range b.in.Requests() {
		if strings.Contains(r, "probe") || b.in.Count("put") > 0 {
			t.Errorf("reading sent %q", r)
		}
	}
	var wg sync.WaitGroup
	dev, err := b.Branch("dev")
	ok(t, err)
	for _, s := range []*Store{b.Store, dev, b.Store, dev} {
		wg.Go(func() {
			if _, err := s.Publish(t.Context(), b.path("f"), backend.Bytes(nil), PublishOptions{Replace: true}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if told != 1 || b.Stats().Caps == nil {
		t.Errorf("told %d times", told)
	}
	same(t, b.keys(), []string{"dev/f", "main/f"})
}

func TestAProbeThatFailsIsMadeAgain(t *testing.T) {
	b := unprobed(t, Options{}, fault.Rule{Op: "put", Err: backend.ErrTransient})
	_, err := b.publish("f", "", PublishOptions{})
	is(t, err, backend.ErrTransient)
	same(t, b.keys(), []string{})
	_, err = b.publish("f", "", PublishOptions{})
	ok(t, err)
	same(t, b.keys(), []string{"main/f"})
}

func TestWhoMayNotProbeMayStillWrite(t *testing.T) {
	b := unprobed(t, Options{}, fault.Rule{Op: "write", Key: ".kei/*", Err: backend.ErrPermission, Times: fault.Always})
	_, err := b.publish("f", "", PublishOptions{})
	ok(t, err)
	b = unprobed(t, Options{}, fault.Rule{Op: "write", Err: backend.ErrPermission, Times: fault.Always})
	_, err = b.publish("f", "", PublishOptions{})
	is(t, err, backend.ErrPermission)
}

func TestAProbeIsNotMadeWhereNothingMayBeWritten(t *testing.T) {
	b := unprobed(t, Options{ReadOnly: true})
	_, err := b.Probe(t.Context())
	is(t, err, ErrReadOnly)
	b.cost()
}

func TestAProbeCleansUpAfterACancelledCall(t *testing.T) {
	b := unprobed(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	b.in.Add(fault.Rule{Op: "stat", Key: ".kei/probe/*", Do: func(context.Context, *backend.Op) error { cancel(); return context.Canceled }})
	_, err := b.Publish(ctx, b.path("f"), backend.Bytes(nil), PublishOptions{})
	is(t, err, context.Canceled)
	same(t, b.keys(), []string{})
}

func TestWhatALesserStoreLacksIsSaidOnceByName(t *testing.T) {
	for _, c := range []struct {
		opts mem.Options
		want []string
	}{
		{mem.Options{}, nil},
		{mem.Options{Caps: func(c *backend.Caps) { c.Metadata = false }}, []string{"metadata: modes"}},
		{mem.Options{Caps: func(c *backend.Caps) { c.CondCreate, c.Metadata, c.Copy = false, false, false }}, []string{"let one write", "metadata: modes", "copies: a rename"}},
	} {
		b := newBench(t, c.opts, Options{})
		for _, name := range []string{"a", "b"} {
			_, err := b.publish(name, "x", PublishOptions{})
			ok(t, err)
		}
		said := b.log.String()
		if want := min(1, len(c.want)); strings.Count(said, "this store lacks") != want {
			t.Errorf("%q, want it %d times", said, want)
		}
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%q lacks %q", said, want)
			}
		}
	}
}
