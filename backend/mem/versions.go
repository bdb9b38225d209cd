package mem

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
)

// versioned is a bucket with all powers.
type versioned struct{ powerful }

var _ backend.Versioner = versioned{}

func (b versioned) VersionsPage(ctx context.Context, opts backend.ListOptions) (backend.VersionsPage, error) {
	if err := ctx.Err(); err != nil {
		return backend.VersionsPage{}, err
	}
	if opts.Delimited || opts.Limit < 0 {
		return backend.VersionsPage{}, backend.Fail("versions", opts.Prefix, backend.ErrInvalid, fmt.Errorf("delimited, or limit %d", opts.Limit))
	}
	limit := b.opts.PageSize
	if opts.Limit > 0 {
		limit = min(limit, opts.Limit)
	}
	b.mu.Lock()
	defer b.mu.Unlock()

	// A token is the version that comes last in the page before, and its key.
	version, from, _ := strings.Cut(opts.Token, " ")
	var page backend.VersionsPage
	i, _ := slices.BinarySearch(b.keys, max(from, opts.Prefix))
	for ; i < len(b.keys) && strings.HasPrefix(b.keys[i], opts.Prefix); i++ {
		key := b.keys[i]
		if key <= opts.After {
			continue
		}
		for o := b.objects[key]; o != nil; o = o.older {
			if key == from && o.info.VersionID >= version {
				continue // newest first: those were on the pages before
			}
			if n := len(page.Versions); n == limit {
				last := page.Versions[n-1]
				page.Next = last.VersionID + " " + last.Key
				return page, nil
			}
			info := o.info
			info.Metadata, info.ContentType = nil, ""
			page.Versions = append(page.Versions, backend.Version{Info: info, Deleted: o.deleted, Latest: o == b.objects[key]})
		}
	}
	return page, nil
}
