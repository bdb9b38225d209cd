package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/keifs/keifs/backend"
)

const (
	// pageSize is how many entries a page of a branch with a base has at most,
	// unless the caller says.
	pageSize = 2000
	// walkSize is the same for a walk, which asks for whiteouts, and for plain
	// objects while there are any, once a page.
	walkSize = 20_000
)

// position is the token of a merged listing: the page of the plain objects
// that is being merged, and the last entry that was given out.
type position struct {
	Token string `json:"t,omitempty"`
	After string `json:"a,omitempty"`
	Done  bool   `json:"d,omitempty"` // there are no more plain objects
}

// item is one entry of a merged listing.
type item struct {
	backend.Info
	prefix bool
	base   *Object // where it is from the base
}

// ListPage implements backend.Backend.
func (b *Bucket) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	l, _ := b.at(opts.Prefix)
	if l == nil {
		return b.raw.ListPage(ctx, opts)
	}
	v, err := l.reading(ctx)
	if err != nil {
		return backend.Page{}, err
	}
	if v.base == nil {
		return b.raw.ListPage(ctx, opts)
	}
	limit := opts.Limit
	if limit <= 0 {
		limit = pageSize
	}
	items, next, err := l.merge(ctx, v, opts, limit)
	if err != nil {
		return backend.Page{}, err
	}
	page := backend.Page{Next: next}
	for _, it := range items {
		if it.prefix {
			page.Prefixes = append(page.Prefixes, it.Key)
			continue
		}
		it.Metadata, it.ContentType = nil, ""
		page.Objects = append(page.Objects, it.Info)
	}
	return page, nil
}

// merge is one page of what a branch with a base shows, of at most limit entries.
func (l *layer) merge(ctx context.Context, v *view, opts backend.ListOptions, limit int) (items []item, next string, err error) {
	var at position
	if opts.Token != "" {
		if err := json.Unmarshal([]byte(opts.Token), &at); err != nil {
			return nil, "", backend.Fail("list", opts.Prefix, backend.ErrInvalid, err)
		}
	}
	if opts.Token == "" && l.raw.Caps().ListAfter {
		at.After = opts.After
	}
	var upper []item
	var page backend.Page
	if at.Done = at.Done || v.frozen; !at.Done {
		page, err = l.raw.ListPage(ctx, backend.ListOptions{Prefix: opts.Prefix, Delimited: opts.Delimited, Token: at.Token, After: at.After, Limit: opts.Limit})
		if err != nil {
			return nil, "", err
		}
		upper = inOrder(page, at.After)
	}
	// The base is good up to where the page ends.
	end := ""
	if page.Next != "" && len(upper) > 0 {
		end = upper[len(upper)-1].Key
	} else if page.Next != "" {
		return nil, position{Token: page.Next, After: at.After}.String(), nil
	}
	took := 0
	for it, err := range l.below(ctx, v, opts, at.After, end) {
		if err != nil {
			return nil, "", err
		}
		for took < len(upper) && upper[took].Key < it.Key && len(items) < limit {
			items = append(items, upper[took])
			took++
		}
		if len(items) == limit {
			done := at.Done || page.Next == "" && took == len(upper)
			return items, position{Token: at.Token, After: items[limit-1].Key, Done: done}.String(), nil
		}
		if took < len(upper) && upper[took].Key == it.Key {
			it = upper[took]
			took++
		}
		items = append(items, it)
	}
	for took < len(upper) && len(items) < limit {
		items = append(items, upper[took])
		took++
	}
	switch {
	case took < len(upper):
		next = position{Token: at.Token, After: items[len(items)-1].Key}.String()
	case page.Next != "":
		next = position{Token: page.Next, After: end}.String()
	}
	return items, next, nil
}

func (p position) String() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprint("a position is text: ", err))
	}
	return string(data)
}

// inOrder merges objects and prefixes of a page that sort behind a key.
func inOrder(page backend.Page, after string) []item {
	var items []item
	objects, prefixes := page.Objects, page.Prefixes
	for len(objects) > 0 || len(prefixes) > 0 {
		var it item
		if len(prefixes) == 0 || len(objects) > 0 && objects[0].Key < prefixes[0] {
			it, objects = item{Info: objects[0]}, objects[1:]
		} else {
			it, prefixes = item{Info: backend.Info{Key: prefixes[0]}, prefix: true}, prefixes[1:]
		}
		if it.Key > after {
			items = append(items, it)
		}
	}
	return items
}

// below yields what the base shows behind the key after and, if it is not
// empty, up to end. The whiteouts are asked for when the first is found.
func (l *layer) below(ctx context.Context, v *view, opts backend.ListOptions, after, end string) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		prefix := strings.TrimPrefix(opts.Prefix, l.prefix)
		from := prefix
		if after != "" {
			from = max(prefix, behind(strings.TrimPrefix(after, l.prefix), opts.Delimited && after != opts.Prefix))
		}
		var gone whiteouts
		for {
			skip := "" // the next start, where a directory is passed over
			for o, err := range v.base.Walk(ctx, prefix, from) {
				if err == nil && gone == nil && !v.frozen {
					gone, err = l.whiteouts(ctx, prefix)
				}
				if err != nil {
					yield(item{}, err)
					return
				}
				dir := ""
				if i := strings.IndexByte(o.Rel[len(prefix):], '/'); opts.Delimited && i >= 0 {
					dir = o.Rel[:len(prefix)+i+1]
				}
				if end != "" && l.prefix+o.Rel > end && (dir == "" || l.prefix+dir > end) {
					return
				}
				switch {
				case dir != "" && gone.hidesBelow(dir):
					skip = behind(dir, true)
				case gone.hides(o.Rel):
					continue
				case dir != "":
					if !yield(item{Info: backend.Info{Key: l.prefix + dir}, prefix: true}, nil) {
						return
					}
					skip = behind(dir, true)
				default:
					if !yield(item{Info: l.info(o), base: &o}, nil) {
						return
					}
				}
				if skip != "" {
					break
				}
			}
			if skip == "" {
				return
			}
			from = skip
		}
	}
}

// HasBase says whether a branch, or a revision, has a base, or whether that
// cannot be told.
func (b *Bucket) HasBase(ctx context.Context, branch string) bool {
	l, _ := b.at(branch + "/")
	if l == nil {
		return false
	}
	v, err := l.reading(ctx)
	return err != nil || v.base != nil
}

// behind is the least key behind rel, or, with all, behind everything that
// begins with it if it ends in '/'.
func behind(rel string, all bool) string {
	if dir, ok := strings.CutSuffix(rel, "/"); ok && all {
		return dir + "0" // which follows '/'
	}
	return rel + "\x00"
}

// Walk yields what a branch, or a revision, shows below prefix, as objects that
// a commit can name: those of the base under the keys that have their content.
// An error is yielded last.
func (b *Bucket) Walk(ctx context.Context, branch, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		l, _ := b.at(branch + "/")
		inBranch := l != nil
		if !inBranch {
			l = &layer{Bucket: b, prefix: branch + "/"}
		}
		var base string // the commit, of a branch that has one
		var at position
		for opts := (backend.ListOptions{Prefix: l.prefix + prefix}); ; {
			v, err := &view{}, error(nil)
			if inBranch { // for each page, since a base may go
				v, err = l.view(ctx, resolved)
			}
			if err == nil && v.base == nil {
				v = &view{ref: v.ref, base: none{}}
			}
			var items []item
			var next string
			if err == nil {
				if now := v.baseID(); now != base && opts.Token != "" {
					opts.Token = at.String() // what was the base's may be among the plain objects now
				}
				base = v.baseID()
				items, next, err = l.merge(ctx, v, opts, walkSize)
			}
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, it := range items {
				o := Object{
					Rel: strings.TrimPrefix(it.Key, l.prefix), Key: it.Key, ETag: it.ETag,
					VersionID: it.VersionID, Size: it.Size, ModTime: it.ModTime,
				}
				if it.base != nil {
					o = *it.base
					o.Inherited = true
				}
				at.After = it.Key
				if !yield(o, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			opts.Token = next
		}
	}
}

// none is the tree of no commit.
type none struct{}

func (none) Lookup(context.Context, string) (Object, bool, error) { return Object{}, false, nil }
func (none) Walk(context.Context, string, string) iter.Seq2[Object, error] {
	return func(func(Object, error) bool) {}
}
