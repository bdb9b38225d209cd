package mem

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
)

func (b *bucket) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	if err := ctx.Err(); err != nil {
		return backend.Page{}, err
	}
	if opts.Limit < 0 {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrInvalid, fmt.Errorf("limit %d", opts.Limit))
	}
	limit := b.opts.PageSize
	if opts.Limit > 0 {
		limit = min(limit, opts.Limit)
	}
	b.mu.Lock()
	defer b.mu.Unlock()

	// A token is the last entry of the page before: a key or a prefix.
	page := backend.Page{Date: time.Now()}
	var last string
	from := opts.Prefix
	if opts.Token == "" {
		opts.Token = opts.After
	}
	if opts.Token != "" {
		last = opts.Token
		from = max(from, after(last, opts))
	}
	i, _ := slices.BinarySearch(b.keys, from)
	for i < len(b.keys) && strings.HasPrefix(b.keys[i], opts.Prefix) {
		o := b.objects[b.keys[i]]
		if o.deleted {
			i++
			continue
		}
		if len(page.Objects)+len(page.Prefixes) == limit {
			page.Next = last
			break
		}
		if p := commonPrefix(o.info.Key, opts); p != "" {
			page.Prefixes = append(page.Prefixes, p)
			last = p
			i, _ = slices.BinarySearch(b.keys, after(p, opts))
			continue
		}
		info := o.info
		info.Metadata, info.ContentType = nil, ""
		page.Objects = append(page.Objects, info)
		last = info.Key
		i++
	}
	return page, nil
}

// commonPrefix is the entry that key collapses into, empty for none.
func commonPrefix(key string, opts backend.ListOptions) string {
	if !opts.Delimited {
		return ""
	}
	n := strings.IndexByte(key[len(opts.Prefix):], '/')
	if n < 0 {
		return ""
	}
	return key[:len(opts.Prefix)+n+1]
}

// after is the least string that sorts behind entry and all it stands for.
func after(entry string, opts backend.ListOptions) string {
	if strings.HasPrefix(entry, opts.Prefix) && commonPrefix(entry, opts) != "" {
		return entry[:len(entry)-1] + "0" // '0' comes next to '/'
	}
	return entry + "\x00"
}

func (b *bucket) insertKeyLocked(key string) {
	if i, found := slices.BinarySearch(b.keys, key); !found {
		b.keys = slices.Insert(b.keys, i, key)
	}
}

func (b *bucket) removeKeyLocked(key string) {
	if i, found := slices.BinarySearch(b.keys, key); found {
		b.keys = slices.Delete(b.keys, i, i+1)
	}
}

// parentsLocked returns ErrBadKey where key would make something an object and
// a prefix at once, in a bucket that cannot have that.
func (b *bucket) parentsLocked(op, key string) error {
	if b.caps.ObjectPrefix {
		return nil
	}
	for i := range len(key) - 1 {
		if key[i] != '/' {
			continue
		}
		if o := b.objects[key[:i]]; o != nil && !o.deleted {
			return backend.Fail(op, key, backend.ErrBadKey, fmt.Errorf("%s is an object", key[:i]))
		}
	}
	if strings.HasSuffix(key, "/") {
		if o := b.objects[key[:len(key)-1]]; o != nil && !o.deleted {
			return backend.Fail(op, key, backend.ErrBadKey, fmt.Errorf("%s is an object", o.info.Key))
		}
		return nil
	}
	for i, _ := slices.BinarySearch(b.keys, key+"/"); i < len(b.keys) && strings.HasPrefix(b.keys[i], key+"/"); i++ {
		if !b.objects[b.keys[i]].deleted {
			return backend.Fail(op, key, backend.ErrBadKey, fmt.Errorf("%s/ is a prefix", key))
		}
	}
	return nil
}
