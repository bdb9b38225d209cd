package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/keifs/keifs/backend"
)

// Copy copies on the server. To replace the metadata it first asks for the
// type and the other headers of the source, which the server would drop.
func (b *bucket) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	if !b.caps.Copy || opts.Cond != (backend.Cond{}) && !b.caps.CondCopy {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, nil)
	}
	if err := b.checkPut("copy", dst, -1, backend.PutOptions{Cond: opts.Cond, Metadata: opts.Metadata}); err != nil {
		return backend.Info{}, err
	}
	if err := b.checkKey("copy", src); err != nil {
		return backend.Info{}, err
	}
	in := &s3.CopyObjectInput{
		Bucket: &b.name, Key: b.full(dst), CopySource: b.copySource(src, opts.SourceVersion), CopySourceIfMatch: ifMatch(opts.SourceETag),
		IfMatch: ifMatch(opts.Cond.IfMatch), IfNoneMatch: ifNoneMatch(opts.Cond),
		StorageClass: b.class, ServerSideEncryption: b.sse, SSEKMSKeyId: b.kmsKey,
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
		CopySourceSSECustomerAlgorithm: b.customer.algorithm, CopySourceSSECustomerKey: b.customer.key, CopySourceSSECustomerKeyMD5: b.customer.md5,
	}
	info := backend.Info{Key: dst, Size: -1}
	if opts.Metadata != nil {
		head, err := b.head(ctx, "copy", src, backend.GetOptions{IfMatch: opts.SourceETag, VersionID: opts.SourceVersion})
		if err != nil {
			return backend.Info{}, err
		}
		if info.Size = aws.ToInt64(head.ContentLength); info.Size > b.caps.MaxCopy && b.caps.MaxCopy > 0 {
			return backend.Info{}, backend.Fail("copy", dst, backend.ErrTooLarge, fmt.Errorf("%d bytes, at most %d", info.Size, b.caps.MaxCopy))
		}
		info.Metadata, info.ContentType = cloned(opts.Metadata), aws.ToString(head.ContentType)
		in.MetadataDirective, in.Metadata = types.MetadataDirectiveReplace, opts.Metadata
		in.CopySourceIfMatch = head.ETag // the headers are of this version
		in.ContentType, in.ContentEncoding, in.ContentLanguage = head.ContentType, head.ContentEncoding, head.ContentLanguage
		in.ContentDisposition, in.CacheControl, in.WebsiteRedirectLocation = head.ContentDisposition, head.CacheControl, head.WebsiteRedirectLocation
		if expires, err := http.ParseTime(aws.ToString(head.ExpiresString)); err == nil {
			in.Expires = &expires
		}
		if in.StorageClass == "" {
			in.StorageClass = head.StorageClass
		}
	}
	req, w := b.WatchLong(ctx)
	defer w.Stop()
	out, err := b.client.CopyObject(req, in)
	if a := answerOf(err); a != nil && a.code == "DirectoryObjectContainsData" {
		return b.copyMarker(ctx, src, dst, opts) // versitygw cannot copy them
	}
	if err != nil {
		if failed := b.failVersion(req, "copy", src, opts.SourceVersion, err); opts.SourceVersion != "" && !errors.Is(failed, backend.ErrPrecondition) {
			return backend.Info{}, failed
		}
		err = b.failCond(req, "copy", dst, opts.Cond, err)
		if errors.Is(err, backend.ErrPrecondition) && opts.Cond == (backend.Cond{}) && opts.SourceETag == "" && opts.Metadata != nil {
			err = backend.Fail("copy", dst, backend.ErrTransient, errors.New("the source has just changed"))
		}
		return backend.Info{}, err
	}
	if out.CopyObjectResult == nil || out.CopyObjectResult.ETag == nil {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrTransient, errors.New("the answer names no ETag"))
	}
	info.ETag, info.ModTime = unquote(out.CopyObjectResult.ETag), aws.ToTime(out.CopyObjectResult.LastModified)
	info.VersionID, info.Date = b.version(out.VersionId), date(out.ResultMetadata)
	return info, nil
}

// copyMarker copies an empty object by writing another one.
func (b *bucket) copyMarker(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	head, err := b.head(ctx, "copy", src, backend.GetOptions{IfMatch: opts.SourceETag, VersionID: opts.SourceVersion})
	if err != nil {
		return backend.Info{}, err
	}
	info := b.headInfo(src, head)
	if info.Size > 0 {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrBadKey, errors.New("this store keeps no data under such a name"))
	}
	put := backend.PutOptions{Cond: opts.Cond, Metadata: opts.Metadata, ContentType: info.ContentType}
	if put.Metadata == nil {
		put.Metadata = info.Metadata
	}
	return b.Put(ctx, dst, backend.Bytes(nil), put)
}

// copySource names an object, or a version of it, in a header: every byte that
// means something in an address or in a header is escaped.
func (b *bucket) copySource(key, version string) *string {
	const hex = "0123456789ABCDEF"
	path := b.name + "/" + b.prefix + key
	out := make([]byte, 0, len(path)+16)
	for i := range len(path) {
		switch c := path[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~', c == '/':
			out = append(out, c)
		default:
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	if version != "" {
		out = append(out, "?versionId="+url.QueryEscape(version)...)
	}
	return aws.String(string(out))
}
