package gcs

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/api/storage/v1"

	"github.com/keifs/keifs/backend"
)

// ListPage is one request, unless there is nothing on a page but what no
// listing shows: then the next page is asked for.
func (b *bucket) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	if opts.Limit < 0 {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrInvalid, fmt.Errorf("limit %d", opts.Limit))
	}
	for {
		out, err := b.listRequest(ctx, opts)
		if err != nil {
			return backend.Page{}, err
		}
		page := b.page(out, opts)
		if len(page.Objects)+len(page.Prefixes) > 0 || page.Next == "" {
			return page, nil
		}
		opts.Token = page.Next
	}
}

func (b *bucket) listRequest(ctx context.Context, opts backend.ListOptions) (*storage.Objects, error) {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	call := b.objects.List(b.name).Prefix(b.full(opts.Prefix)).PageToken(opts.Token).Context(ctx).
		Fields("nextPageToken", "prefixes", "items(name,size,generation,metageneration,updated)")
	if opts.Delimited {
		call.Delimiter("/")
	}
	if opts.Limit > 0 {
		call.MaxResults(int64(min(opts.Limit, 1000)))
	}
	if opts.After != "" && opts.Token == "" {
		call.StartOffset(b.full(opts.After)) // with that entry itself
	}
	out, err := call.Do()
	return out, b.fail(ctx, "list", opts.Prefix, err)
}

func (b *bucket) page(out *storage.Objects, opts backend.ListOptions) backend.Page {
	page := backend.Page{Next: out.NextPageToken}
	page.Date, _ = http.ParseTime(out.Header.Get("Date"))
	shown := func(name string) (key string, ok bool) {
		key, ok = strings.CutPrefix(name, b.prefix)
		return key, ok && key != "" && !strings.HasPrefix(key, reserved) && (opts.After == "" || key > opts.After)
	}
	for _, o := range out.Items {
		if key, ok := shown(o.Name); ok {
			page.Objects = append(page.Objects, listed(key, o))
		}
	}
	for _, name := range out.Prefixes {
		if key, ok := shown(name); ok {
			page.Prefixes = append(page.Prefixes, key)
		}
	}
	return page
}
