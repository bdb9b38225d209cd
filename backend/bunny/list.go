package bunny

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

const (
	pageSize = 1000 // entries of a page
	looks    = 16   // directories that are looked into at a time
)

// list asks for the entries of a directory: nil where there is none. What
// cannot be a key is left out. date is when the store answered.
func (z *zone) list(ctx context.Context, op, dir string) (entries []entry, date time.Time, err error) {
	entries = []entry{}
	date, err = z.ask(ctx, op, dir, http.MethodGet, z.prefix+dir, &entries)
	if errors.Is(err, backend.ErrNotExist) {
		return nil, date, nil
	}
	if err != nil {
		return nil, date, err
	}
	return slices.DeleteFunc(entries, func(e entry) bool {
		marker := e.ObjectName == Marker && !e.IsDirectory
		return !marker && (strings.Contains(e.ObjectName, "/") || badPath(e.ObjectName) != nil)
	}), date, nil
}

// item is an entry with its key: that of a directory ends in '/'.
type item struct {
	entry
	key string
}

// items is what a directory holds, in the order of keys, which is not that of
// names: "a-b" comes before "a/", and that before "a0".
func (l *lister) items(ctx context.Context, dir string) ([]item, error) {
	entries, date, err := l.list(ctx, "list", dir)
	if l.page.Date.IsZero() {
		l.page.Date = date
	}
	items := make([]item, 0, len(entries))
	for _, e := range entries {
		key := dir + e.ObjectName
		switch {
		case e.IsDirectory:
			key += "/"
		case e.ObjectName == Marker:
			key = dir
		}
		if key != "" { // the root has no marker
			items = append(items, item{e, key})
		}
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
	return items, err
}

// ListPage is a walk through the directories where it is not delimited. Where
// it is, it looks into each directory that it lists, since an empty one is
// none. A token is the last key of the page before.
func (z *zone) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	if opts.Limit < 0 {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrInvalid, fmt.Errorf("limit %d", opts.Limit))
	}
	if opts.Limit == 0 {
		opts.Limit = pageSize
	}
	dir := opts.Prefix[:strings.LastIndexByte(opts.Prefix, '/')+1]
	if dir != "" && badPath(strings.TrimSuffix(dir, "/")) != nil {
		return backend.Page{}, ctx.Err() // no key can begin so
	}
	l := lister{zone: z, opts: opts}
	var err error
	if opts.Delimited {
		err = l.level(ctx, dir)
	} else {
		err = l.walk(ctx, dir)
	}
	if err != nil && err != errFull {
		return backend.Page{}, err
	}
	return l.page, nil
}

// lister makes one page.
type lister struct {
	*zone
	opts backend.ListOptions
	page backend.Page
	last string // key of the last entry
}

var errFull = errors.New("the page is full")

// add takes an entry, or ends the page.
func (l *lister) add(i item) error {
	if len(l.page.Objects)+len(l.page.Prefixes) == l.opts.Limit {
		l.page.Next = l.last
		return errFull
	}
	if l.last = i.key; i.IsDirectory {
		l.page.Prefixes = append(l.page.Prefixes, i.key)
	} else {
		l.page.Objects = append(l.page.Objects, i.info(i.key))
	}
	return nil
}

// level lists one directory.
func (l *lister) level(ctx context.Context, dir string) error {
	items, err := l.items(ctx, dir)
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(i item) bool {
		return i.key <= l.opts.Token || !strings.HasPrefix(i.key, l.opts.Prefix)
	})
	for some := range slices.Chunk(items, min(looks, l.opts.Limit+1)) {
		shown, err := l.shown(ctx, some)
		if err != nil {
			return err
		}
		for i, item := range some {
			if !shown[i] {
				continue
			}
			if err := l.add(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// shown says of each item whether it is a file, or has one below it.
func (z *zone) shown(ctx context.Context, items []item) ([]bool, error) {
	shown, errs := make([]bool, len(items)), make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		if !item.IsDirectory {
			shown[i] = true
			continue
		}
		wg.Go(func() { _, shown[i], errs[i] = z.holds(ctx, "list", item.key) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err // each is the whole story
		}
	}
	return shown, nil
}

// walk lists everything below a directory.
func (l *lister) walk(ctx context.Context, dir string) error {
	items, err := l.items(ctx, dir)
	if err != nil {
		return err
	}
	for _, i := range items {
		token, prefix := l.opts.Token, l.opts.Prefix
		switch {
		case i.IsDirectory:
			done := i.key < token && !strings.HasPrefix(token, i.key)
			if done || !strings.HasPrefix(i.key, prefix) && !strings.HasPrefix(prefix, i.key) {
				continue
			}
			err = l.walk(ctx, i.key)
		case i.key > token && strings.HasPrefix(i.key, prefix):
			err = l.add(i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
