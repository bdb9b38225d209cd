package backend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
)

// Entry is one result of [List]: an object, or a prefix that ends in '/'.
type Entry struct {
	Info
	Prefix bool // Info.Key is a common prefix; nothing else is set
}

// List yields one level below prefix (which is empty or ends in '/'):
// objects and common prefixes, merged in ascending byte order. Pages are
// fetched as the caller proceeds. After an error, which is yielded last, the
// listing ends.
func List(ctx context.Context, b Backend, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for page, err := range pages(ctx, b, ListOptions{Prefix: prefix, Delimited: true}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			objects, prefixes := page.Objects, page.Prefixes
			for len(objects) > 0 || len(prefixes) > 0 {
				var e Entry
				if len(prefixes) == 0 || len(objects) > 0 && objects[0].Key < prefixes[0] {
					e, objects = Entry{Info: objects[0]}, objects[1:]
				} else {
					e, prefixes = Entry{Info: Info{Key: prefixes[0]}, Prefix: true}, prefixes[1:]
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// ListRecursive yields every object whose key begins with prefix, in ascending
// byte order. Pages are fetched as the caller proceeds. After an error, which
// is yielded last, the listing ends.
func ListRecursive(ctx context.Context, b Backend, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for page, err := range pages(ctx, b, ListOptions{Prefix: prefix}) {
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, info := range page.Objects {
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

func pages(ctx context.Context, b Backend, opts ListOptions) iter.Seq2[Page, error] {
	return func(yield func(Page, error) bool) {
		for {
			page, err := b.ListPage(ctx, opts)
			if !yield(page, err) || err != nil || page.Next == "" {
				return
			}
			opts.Token = page.Next
		}
	}
}

// Exists says whether there is an object of that key.
func Exists(ctx context.Context, b Backend, key string) (bool, error) {
	_, err := b.Stat(ctx, key)
	if errors.Is(err, ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ReadAll reads a whole object of at most limit bytes; ErrTooLarge above it.
// It is for small records, not for files.
func ReadAll(ctx context.Context, b Backend, key string, limit int64) ([]byte, Info, error) {
	var data []byte
	var info Info
	err := b.Get(ctx, key, GetOptions{}, func(i Info, body io.Reader) error {
		info = i
		if i.Size > limit {
			return Fail("get", key, ErrTooLarge, nil)
		}
		var err error
		data, err = io.ReadAll(io.LimitReader(body, limit+1))
		if err == nil && int64(len(data)) > limit {
			err = Fail("get", key, ErrTooLarge, nil)
		}
		return err
	})
	if err != nil {
		return nil, Info{}, err
	}
	return data, info, nil
}

// Bytes is a Source of a byte slice.
func Bytes(p []byte) Source { return bytes.NewReader(p) }

// Section is the part of src of n bytes at offset off.
func Section(src Source, off, n int64) Source { return io.NewSectionReader(src, off, n) }

// Priority orders requests that wait for a slot.
type Priority int

// From most to least urgent. Interactive is the default.
const (
	Interactive Priority = iota // somebody waits for the answer
	ReadAhead                   // somebody will probably ask soon
	Background                  // nobody waits: uploads behind, warming, collection
)

type priorityKey struct{}

// WithPriority returns a context whose requests have that priority.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority of a context's requests.
func PriorityOf(ctx context.Context) Priority {
	p, _ := ctx.Value(priorityKey{}).(Priority)
	return p
}

// AssemblyID is what Discarder.Discard knows the assembly by; empty where the
// store has none.
func AssemblyID(a Assembly) string {
	if named, ok := a.(interface{ ID() string }); ok {
		return named.ID()
	}
	return ""
}
