package azure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/keifs/keifs/backend"
)

func (c *container) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	if opts.Limit < 0 {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrInvalid, fmt.Errorf("limit %d", opts.Limit))
	}
	if oddText(opts.Prefix) {
		return backend.Page{}, ctx.Err() // no key can begin so
	}
	ctx, w := c.Watch(ctx)
	defer w.Stop()
	prefix := c.prefix + opts.Prefix
	var limit *int32
	if opts.Limit > 0 {
		limit = new(int32(min(opts.Limit, 5000)))
	}
	var marker *string
	if opts.Token != "" {
		marker = &opts.Token
	}
	var items []*azcontainer.BlobItem
	var prefixes []*azcontainer.BlobPrefix
	var next *string
	var date *time.Time
	if opts.Delimited {
		pager := c.client.NewListBlobsHierarchyPager("/", &azcontainer.ListBlobsHierarchyOptions{Prefix: &prefix, MaxResults: limit, Marker: marker})
		out, err := pager.NextPage(ctx)
		if err != nil {
			return backend.Page{}, c.fail(ctx, "list", opts.Prefix, err)
		}
		items, prefixes, next, date = out.Segment.BlobItems, out.Segment.BlobPrefixes, out.NextMarker, out.Date
	} else {
		pager := c.client.NewListBlobsFlatPager(&azcontainer.ListBlobsFlatOptions{Prefix: &prefix, MaxResults: limit, Marker: marker})
		out, err := pager.NextPage(ctx)
		if err != nil {
			return backend.Page{}, c.fail(ctx, "list", opts.Prefix, err)
		}
		items, next, date = out.Segment.BlobItems, out.NextMarker, out.Date
	}
	page := backend.Page{Next: value(next), Date: value(date)}
	for _, item := range items {
		key, ok := strings.CutPrefix(value(item.Name), c.prefix)
		if !ok || item.Properties == nil {
			return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrTransient, fmt.Errorf("the listing names %q", value(item.Name)))
		}
		page.Objects = append(page.Objects, backend.Info{
			Key: key, Size: value(item.Properties.ContentLength), ETag: unquoted(item.Properties.ETag), ModTime: value(item.Properties.LastModified),
		})
	}
	for _, p := range prefixes {
		page.Prefixes = append(page.Prefixes, strings.TrimPrefix(value(p.Name), c.prefix))
	}
	// Azure's order is that of its own characters, which is that of bytes but
	// for the very last ones.
	slices.SortFunc(page.Objects, func(a, b backend.Info) int { return strings.Compare(a.Key, b.Key) })
	slices.Sort(page.Prefixes)
	if page.Next != "" && page.Next == opts.Token {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrIO, errors.New("the server's pages do not get on"))
	}
	return page, nil
}
