package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keifs/keifs/backend"
)

func (b *bucket) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	limit, err := listLimit("list", opts)
	if err != nil {
		return backend.Page{}, err
	}
	in := &s3.ListObjectsV2Input{
		Bucket: &b.name, Prefix: b.full(opts.Prefix), MaxKeys: limit, ContinuationToken: optional(opts.Token),
		EncodingType: types.EncodingTypeUrl,
	}
	if opts.Delimited {
		in.Delimiter = aws.String("/")
	}
	if opts.Token == "" && opts.After != "" {
		after := opts.After
		if opts.Delimited && strings.HasSuffix(after, "/") && len(after) > len(opts.Prefix) {
			after += "\U0010ffff" // behind all that the prefix stands for
		}
		in.StartAfter = b.full(after)
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	var body string
	out, err := b.client.ListObjectsV2(ctx, in, capture(&body))
	if err != nil {
		return backend.Page{}, b.fail(ctx, "list", opts.Prefix, err)
	}
	l := listing{b: b, root: "ListBucketResult"}
	if err := l.parse(body); err != nil {
		return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrTransient, err)
	}
	page := backend.Page{Prefixes: l.prefixes, Objects: make([]backend.Info, 0, len(l.entries)), Date: date(out.ResultMetadata)}
	for _, e := range l.entries {
		if e.Key > opts.After { // not every server knows start-after
			page.Objects = append(page.Objects, e.Info)
		}
	}
	page.Prefixes = slices.DeleteFunc(page.Prefixes, func(p string) bool { return p <= opts.After })
	if l.truncated {
		if page.Next = l.next["NextContinuationToken"]; page.Next == "" {
			return backend.Page{}, backend.Fail("list", opts.Prefix, backend.ErrTransient, errors.New("a page with no token for the next"))
		}
	}
	return page, progress("list", opts, page.Next)
}

func (b *bucket) VersionsPage(ctx context.Context, opts backend.ListOptions) (backend.VersionsPage, error) {
	limit, err := listLimit("versions", opts)
	if err != nil {
		return backend.VersionsPage{}, err
	}
	if opts.Delimited {
		return backend.VersionsPage{}, backend.Fail("versions", opts.Prefix, backend.ErrInvalid, errors.New("delimited"))
	}
	if !b.caps.Versions {
		return backend.VersionsPage{}, backend.Fail("versions", opts.Prefix, backend.ErrUnsupported, errors.New("the bucket keeps no versions"))
	}
	in := &s3.ListObjectVersionsInput{
		Bucket: &b.name, Prefix: b.full(opts.Prefix), MaxKeys: limit, EncodingType: types.EncodingTypeUrl,
	}
	// A token is both markers; a version id has no space.
	if version, key, ok := strings.Cut(opts.Token, " "); ok {
		in.KeyMarker, in.VersionIdMarker = &key, optional(version)
	} else if opts.After != "" {
		in.KeyMarker = b.full(opts.After)
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	var body string
	if _, err := b.client.ListObjectVersions(ctx, in, capture(&body)); err != nil {
		return backend.VersionsPage{}, b.fail(ctx, "versions", opts.Prefix, err)
	}
	l := listing{b: b, root: "ListVersionsResult"}
	if err := l.parse(body); err != nil {
		return backend.VersionsPage{}, backend.Fail("versions", opts.Prefix, backend.ErrTransient, err)
	}
	page := backend.VersionsPage{Versions: ordered(l.entries)}
	// versitygw heeds a marker of a key only beside that of a version.
	page.Versions = slices.DeleteFunc(page.Versions, func(v backend.Version) bool { return v.Key <= opts.After })
	if l.truncated {
		page.Next = l.next["NextVersionIdMarker"] + " " + l.next["NextKeyMarker"]
	}
	return page, progress("versions", opts, page.Next)
}

// progress returns an error for a page that says it is followed by itself.
// There are servers whose listing then never ends.
func progress(op string, opts backend.ListOptions, next string) error {
	if next != "" && next == opts.Token {
		return backend.Fail(op, opts.Prefix, backend.ErrIO, errors.New("the server's pages do not get on"))
	}
	return nil
}

// ordered is by key, then newest first. The store's own order within a key is
// kept where it can be: times have a resolution of seconds, and that of an
// upload in parts is when it began. Some servers tell all deletions first.
func ordered(versions []backend.Version) []backend.Version {
	byKey := func(a, b backend.Version) int { return strings.Compare(a.Key, b.Key) }
	if slices.IsSortedFunc(versions, byKey) {
		return versions
	}
	slices.SortStableFunc(versions, func(a, b backend.Version) int {
		switch {
		case a.Key != b.Key:
			return byKey(a, b)
		case a.Latest != b.Latest:
			if a.Latest {
				return -1
			}
			return 1
		}
		return b.ModTime.Compare(a.ModTime)
	})
	return versions
}

func listLimit(op string, opts backend.ListOptions) (*int32, error) {
	if opts.Limit < 0 {
		return nil, backend.Fail(op, opts.Prefix, backend.ErrInvalid, fmt.Errorf("limit %d", opts.Limit))
	}
	if opts.Limit == 0 {
		return nil, nil
	}
	return aws.Int32(int32(min(opts.Limit, 1000))), nil
}

// capture takes the body of a good answer away from the SDK, whose reading of
// a listing costs thirty times that of [listing], and loses the order of
// versions and deletion marks.
func capture(body *string) func(*s3.Options) {
	read := middleware.DeserializeMiddlewareFunc("keifs:Capture", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		resp, ok := out.RawResponse.(*smithyhttp.Response)
		if err != nil || !ok || resp.StatusCode/100 != 2 {
			return out, metadata, err
		}
		var doc strings.Builder
		_, err = io.Copy(&doc, io.LimitReader(resp.Body, maxListing))
		*body = doc.String()
		resp.Body.Close()
		resp.Body = http.NoBody // an empty listing, to the SDK
		if err != nil {
			err = &url.Error{Op: "Get", URL: resp.Request.URL.String(), Err: err}
		}
		return out, metadata, err
	})
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Deserialize.Insert(read, "OperationDeserializer", middleware.After)
		})
	}
}

// maxListing is far more than a thousand keys can need.
const maxListing = 64 << 20

// listing is a page as the server tells it.
type listing struct {
	b    *bucket
	root string // the element it must be

	entries   []backend.Version // of a plain listing: only Info
	prefixes  []string
	truncated bool
	encoded   bool              // keys are URL-encoded
	next      map[string]string // markers of the next page, by element
}

func (l *listing) parse(doc string) error {
	l.next = map[string]string{}
	x := xmlScanner{rest: doc}
	name, _, err := x.open()
	if err != nil {
		return err
	}
	if name != l.root {
		return fmt.Errorf("the answer is a %q, not a listing", name)
	}
	err = x.children(func(name string) error {
		switch name {
		case "Contents", "Version", "DeleteMarker":
			e, err := l.entry(&x)
			e.Deleted = name == "DeleteMarker"
			l.entries = append(l.entries, e)
			return err
		case "CommonPrefixes":
			return x.children(func(name string) error {
				text, err := x.text()
				if name == "Prefix" {
					l.prefixes = append(l.prefixes, text)
				}
				return err
			})
		case "IsTruncated", "EncodingType", "NextContinuationToken", "NextKeyMarker", "NextVersionIdMarker":
			text, err := x.text()
			switch name {
			case "IsTruncated":
				l.truncated = text == "true"
			case "EncodingType":
				l.encoded = text == string(types.EncodingTypeUrl)
			default:
				l.next[name] = text
			}
			return err
		}
		return x.skip()
	})
	if err != nil {
		return err
	}
	return l.decode()
}

func (l *listing) entry(x *xmlScanner) (e backend.Version, err error) {
	err = x.children(func(name string) error {
		switch name {
		case "Key", "Size", "ETag", "LastModified", "VersionId", "IsLatest":
		default:
			return x.skip() // Owner has children
		}
		text, err := x.text()
		if err != nil {
			return err
		}
		switch name {
		case "Key":
			e.Key = text
		case "Size":
			e.Size, err = strconv.ParseInt(text, 10, 64)
		case "ETag":
			e.ETag = strings.Clone(unquote(&text))
		case "LastModified":
			e.ModTime, err = time.Parse(time.RFC3339, text)
			e.ModTime = e.ModTime.Truncate(time.Second) // as a read tells it
		case "VersionId":
			e.VersionID = strings.Clone(text)
		case "IsLatest":
			e.Latest = text == "true"
		}
		return err
	})
	return e, err
}

// decode makes keys of what was told: the encoding is known only at the end.
func (l *listing) decode() error {
	decode := func(s *string) error {
		if !l.encoded {
			return nil
		}
		d, err := url.QueryUnescape(*s)
		*s = d
		return err
	}
	strip := func(s *string) error {
		if err := decode(s); err != nil {
			return err
		}
		key, ok := strings.CutPrefix(*s, l.b.prefix)
		if !ok {
			return fmt.Errorf("the listing names %q, which is not below %q", *s, l.b.prefix)
		}
		*s = strings.Clone(key) // not the whole page with it
		return nil
	}
	for i := range l.entries {
		if err := strip(&l.entries[i].Key); err != nil {
			return err
		}
	}
	for i := range l.prefixes {
		if err := strip(&l.prefixes[i]); err != nil {
			return err
		}
	}
	marker := l.next["NextKeyMarker"]
	err := decode(&marker)
	l.next["NextKeyMarker"] = marker
	return err
}
