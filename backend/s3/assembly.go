package s3

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// Assemble begins a multipart upload. It declares checksums where no part will
// be copied, which many servers refuse with them, unless the server refuses
// that, or says nothing of it.
func (b *bucket) Assemble(ctx context.Context, key string, opts backend.PutOptions) (backend.Assembly, error) {
	if err := b.checkPut("assemble", key, -1, opts); err != nil {
		return nil, err
	}
	if opts.ContentType == "" {
		opts.ContentType = httpio.DefaultType
	}
	opts.Metadata = cloned(opts.Metadata)
	out, err := b.create(ctx, key, opts, opts.NoCopies && !b.sumless.Load())
	if opts.NoCopies && (errors.Is(err, backend.ErrInvalid) || errors.Is(err, backend.ErrUnsupported)) {
		if out, err = b.create(ctx, key, opts, false); err == nil {
			b.sumless.Store(true)
		}
	}
	if err != nil {
		return nil, err
	}
	if aws.ToString(out.UploadId) == "" {
		return nil, backend.Fail("assemble", key, backend.ErrTransient, errors.New("the answer names no upload"))
	}
	return &assembly{
		b: b, key: key, opts: opts, upload: out.UploadId, parts: map[int32]part{},
		summed: out.ChecksumAlgorithm == types.ChecksumAlgorithmCrc32c, whole: out.ChecksumType == types.ChecksumTypeFullObject,
	}, nil
}

func (b *bucket) create(ctx context.Context, key string, opts backend.PutOptions, sums bool) (*s3.CreateMultipartUploadOutput, error) {
	in := &s3.CreateMultipartUploadInput{
		Bucket: &b.name, Key: b.full(key), Metadata: opts.Metadata, ContentType: &opts.ContentType,
		StorageClass: b.class, ServerSideEncryption: b.sse, SSEKMSKeyId: b.kmsKey,
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
	}
	if sums {
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithmCrc32c, types.ChecksumTypeFullObject
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	out, err := b.client.CreateMultipartUpload(ctx, in)
	return out, b.fail(ctx, "assemble", key, err)
}

type assembly struct {
	b      *bucket
	key    string
	opts   backend.PutOptions
	upload *string
	summed bool // parts have checksums
	whole  bool // the object has one of its own, not one of those of its parts

	mu    sync.Mutex
	parts map[int32]part
}

type part struct {
	etag *string
	size int64
	sum  uint32
}

func (a *assembly) PutPart(ctx context.Context, number int, src backend.Source) error {
	if err := a.check("putpart", number, src.Size()); err != nil {
		return err
	}
	b := a.b
	in := &s3.UploadPartInput{
		Bucket: &b.name, Key: b.full(a.key), UploadId: a.upload, PartNumber: aws.Int32(int32(number)), ContentLength: aws.Int64(src.Size()),
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
	}
	p := part{size: src.Size()}
	if a.summed {
		var err error
		if p.sum, err = sumOf(src); err != nil {
			return fmt.Errorf("putpart %s: source: %w", a.key, err)
		}
		in.ChecksumCRC32C = sumText(p.sum)
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	body := w.Upload(src)
	in.Body = body
	out, err := b.client.UploadPart(ctx, in, unsigned)
	if srcErr := body.End(); srcErr != nil && err != nil && ctx.Err() == nil {
		return fmt.Errorf("putpart %s: source: %w", a.key, srcErr)
	}
	if err != nil {
		return b.fail(ctx, "putpart", a.key, err)
	}
	p.etag = out.ETag
	a.add(number, p)
	return nil
}

func (a *assembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	if err := a.check("copypart", number, length); err != nil {
		return err
	}
	if err := a.b.checkKey("copypart", key); err != nil {
		return err
	}
	if offset < 0 || length <= 0 { // a range cannot be empty
		return backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", offset, length))
	}
	b := a.b
	ctx, w := b.WatchLong(ctx)
	defer w.Stop()
	out, err := b.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
		Bucket: &b.name, Key: b.full(a.key), UploadId: a.upload, PartNumber: aws.Int32(int32(number)),
		CopySource: b.copySource(key, ""), CopySourceIfMatch: ifMatch(etag),
		CopySourceRange:      aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)),
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
		CopySourceSSECustomerAlgorithm: b.customer.algorithm, CopySourceSSECustomerKey: b.customer.key, CopySourceSSECustomerKeyMD5: b.customer.md5,
	})
	if err != nil {
		return b.fail(ctx, "copypart", key, err)
	}
	if out.CopyPartResult == nil || out.CopyPartResult.ETag == nil {
		return backend.Fail("copypart", key, backend.ErrTransient, errors.New("the answer names no ETag"))
	}
	a.add(number, part{etag: out.CopyPartResult.ETag, size: length})
	return nil
}

func (a *assembly) check(op string, number int, size int64) error {
	if number < 1 {
		return backend.Fail(op, a.key, backend.ErrInvalid, fmt.Errorf("part %d", number))
	}
	if number > a.b.caps.MaxParts || size > a.b.caps.MaxPart {
		return backend.Fail(op, a.key, backend.ErrTooLarge, fmt.Errorf("part %d of %d bytes", number, size))
	}
	return nil
}

func (a *assembly) add(number int, p part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts[int32(number)] = p
}

// list is what to complete with, and what is known of the whole.
func (a *assembly) list() (parts []types.CompletedPart, whole part, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.parts) == 0 {
		return nil, whole, backend.Fail("complete", a.key, backend.ErrInvalid, errors.New("no parts"))
	}
	for i := range int32(len(a.parts)) {
		p, ok := a.parts[i+1]
		if !ok {
			return nil, whole, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("no part %d", i+1))
		}
		done := types.CompletedPart{PartNumber: aws.Int32(i + 1), ETag: p.etag}
		if a.summed {
			done.ChecksumCRC32C = sumText(p.sum)
		}
		parts = append(parts, done)
		whole.size += p.size
		whole.sum = joinSums(whole.sum, p.sum, p.size)
	}
	return parts, whole, nil
}

func (a *assembly) Complete(ctx context.Context) (backend.Info, error) {
	parts, whole, err := a.list()
	if err != nil {
		return backend.Info{}, err
	}
	b := a.b
	ctx, w := b.WatchLong(ctx)
	defer w.Stop()
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &b.name, Key: b.full(a.key), UploadId: a.upload, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		IfMatch: ifMatch(a.opts.Cond.IfMatch), IfNoneMatch: ifNoneMatch(a.opts.Cond),
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
	}
	if a.summed && a.whole {
		in.ChecksumType, in.ChecksumCRC32C = types.ChecksumTypeFullObject, sumText(whole.sum)
	}
	out, err := b.client.CompleteMultipartUpload(ctx, in)
	if err != nil {
		return backend.Info{}, b.failCond(ctx, "complete", a.key, a.opts.Cond, err)
	}
	if out.ETag == nil {
		return backend.Info{}, backend.Fail("complete", a.key, backend.ErrTransient, errors.New("the answer names no ETag"))
	}
	return backend.Info{
		Key: a.key, Size: whole.size, ETag: unquote(out.ETag), ModTime: answered(out.ResultMetadata), VersionID: b.version(out.VersionId),
		Metadata: cloned(a.opts.Metadata), ContentType: a.opts.ContentType,
	}, nil
}

// Abort discards the parts.
func (a *assembly) Abort(ctx context.Context) error {
	return a.b.discard(ctx, "abort", a.key, a.upload)
}

// ID is that of the upload.
func (a *assembly) ID() string { return *a.upload }

// Discard ends an upload of a process before.
func (b *bucket) Discard(ctx context.Context, key, id string) error {
	return b.discard(ctx, "discard", key, &id)
}

// discard ends an upload. One that the server does not know is gone.
func (b *bucket) discard(ctx context.Context, op, key string, upload *string) error {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: b.full(key), UploadId: upload})
	if err = b.fail(ctx, op, key, err); errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}
