package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

func (b *bucket) Stat(ctx context.Context, key string) (backend.Info, error) {
	if err := b.checkKey("stat", key); err != nil {
		return backend.Info{}, err
	}
	out, err := b.head(ctx, "stat", key, backend.GetOptions{})
	if err != nil {
		return backend.Info{}, err
	}
	return b.headInfo(key, out), nil
}

// head asks for an object without its body. Neither has a refusal a body, so
// that it takes a GET to learn what is wrong with the credentials or the key.
func (b *bucket) head(ctx context.Context, op, key string, opts backend.GetOptions) (*s3.HeadObjectOutput, error) {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &b.name, Key: b.full(key), IfMatch: ifMatch(opts.IfMatch), VersionId: optional(opts.VersionID),
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
	})
	if a := answerOf(err); a != nil && a.code == "" && (a.status == http.StatusBadRequest || a.status == http.StatusForbidden) {
		get, getErr := b.client.GetObject(ctx, &s3.GetObjectInput{
			Bucket: &b.name, Key: b.full(key), VersionId: optional(opts.VersionID), Range: aws.String("bytes=0-0"),
			SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
		})
		if getErr == nil {
			get.Body.Close()
		} else {
			err = getErr
		}
	}
	if err != nil {
		return nil, b.failVersion(ctx, op, key, opts.VersionID, err)
	}
	return out, nil
}

func (b *bucket) headInfo(key string, out *s3.HeadObjectOutput) backend.Info {
	return backend.Info{
		Key: key, Size: aws.ToInt64(out.ContentLength), ETag: unquote(out.ETag), ModTime: aws.ToTime(out.LastModified),
		VersionID: b.version(out.VersionId), Metadata: told(out.Metadata), ContentType: aws.ToString(out.ContentType),
		Date: date(out.ResultMetadata),
	}
}

// failVersion is fail for a request that may name a version.
func (b *bucket) failVersion(ctx context.Context, op, key, version string, err error) error {
	a := answerOf(err)
	err = b.fail(ctx, op, key, err)
	if version == "" || !errors.Is(err, backend.ErrNotExist) && (a == nil || a.code != "InvalidArgument" && a.code != "VersioningNotConfigured") {
		return err
	}
	// There is no such version, or this is no version's name.
	kind := backend.ErrNotExist
	if !b.caps.Versions {
		kind = backend.ErrUnsupported
	}
	return backend.Fail(op, key, kind, a)
}

func (b *bucket) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	if err := b.checkKey("get", key); err != nil {
		return err
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return backend.Fail("get", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", opts.Offset, opts.Length))
	}
	in := &s3.GetObjectInput{
		Bucket: &b.name, Key: b.full(key), IfMatch: ifMatch(opts.IfMatch), VersionId: optional(opts.VersionID),
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
	}
	switch {
	case opts.Length > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", opts.Offset, opts.Offset+opts.Length-1))
	case opts.Offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", opts.Offset))
	default:
		in.ChecksumMode = types.ChecksumModeEnabled // of the whole, where the store knows one
	}
	req, w := b.Watch(ctx)
	defer w.Stop()
	out, err := b.client.GetObject(req, in)
	if a := answerOf(err); a != nil && a.status == http.StatusRequestedRangeNotSatisfiable {
		return b.getNothing(ctx, key, opts, fn)
	}
	if err != nil {
		return b.failVersion(req, "get", key, opts.VersionID, err)
	}
	w.Pause()
	defer out.Body.Close()
	info := backend.Info{
		Key: key, Size: aws.ToInt64(out.ContentLength), ETag: unquote(out.ETag), ModTime: aws.ToTime(out.LastModified),
		VersionID: b.version(out.VersionId), Metadata: told(out.Metadata), ContentType: aws.ToString(out.ContentType),
		Date: date(out.ResultMetadata),
	}
	body := &httpio.Body{Watch: w, Key: key, Reader: out.Body, Left: info.Size, Fail: func(err error) error {
		return b.failBody(req, key, err)
	}}
	if in.Range != nil {
		if info.Size, err = body.Cut(opts, aws.ToString(out.ContentRange)); err != nil {
			return err
		}
	}
	return fn(info, body)
}

// getNothing answers for a range beyond the end. The refusal of the range does
// not tell what the object is, and a reader of an empty one wants to know.
func (b *bucket) getNothing(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	out, err := b.head(ctx, "get", key, opts)
	if err != nil {
		return err
	}
	info := b.headInfo(key, out)
	if opts.Offset < info.Size {
		return backend.Fail("get", key, backend.ErrTransient, errors.New("the object has just changed"))
	}
	return fn(info, strings.NewReader(""))
}

func (b *bucket) failBody(ctx context.Context, key string, err error) error {
	if ctx.Err() != nil {
		return b.fail(ctx, "get", key, err)
	}
	// The SDK has no type for it.
	if strings.HasPrefix(err.Error(), "checksum did not match") {
		return backend.Fail("get", key, backend.ErrCorrupt, httpio.Words(err))
	}
	return backend.Fail("get", key, backend.ErrTransient, httpio.Words(err))
}

func (b *bucket) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := b.checkPut("put", key, src.Size(), opts); err != nil {
		return backend.Info{}, err
	}
	if opts.ContentType == "" {
		opts.ContentType = httpio.DefaultType
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	body := w.Upload(src)
	out, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.name, Key: b.full(key), Body: body, ContentLength: aws.Int64(src.Size()),
		IfMatch: ifMatch(opts.Cond.IfMatch), IfNoneMatch: ifNoneMatch(opts.Cond),
		Metadata: opts.Metadata, ContentType: &opts.ContentType, StorageClass: b.class,
		ServerSideEncryption: b.sse, SSEKMSKeyId: b.kmsKey,
		SSECustomerAlgorithm: b.customer.algorithm, SSECustomerKey: b.customer.key, SSECustomerKeyMD5: b.customer.md5,
	}, signed, func(o *s3.Options) {
		if opts.Cond != (backend.Cond{}) {
			o.ContinueHeaderThresholdBytes = 4 << 20 // it may be refused before the body is sent
		}
	})
	if srcErr := body.End(); srcErr != nil && err != nil && ctx.Err() == nil {
		return backend.Info{}, fmt.Errorf("put %s: source: %w", key, srcErr)
	}
	if err != nil {
		return backend.Info{}, b.failCond(ctx, "put", key, opts.Cond, err)
	}
	return backend.Info{
		Key: key, Size: src.Size(), ETag: unquote(out.ETag), ModTime: answered(out.ResultMetadata), VersionID: b.version(out.VersionId),
		Metadata: cloned(opts.Metadata), ContentType: opts.ContentType, Date: date(out.ResultMetadata),
	}, nil
}

// failCond is fail for a change with a condition.
func (b *bucket) failCond(ctx context.Context, op, key string, cond backend.Cond, err error) error {
	a := answerOf(err)
	err = b.fail(ctx, op, key, err)
	if cond.IfMatch != "" && errors.Is(err, backend.ErrNotExist) && (a.code == "NoSuchKey" || a.code == "") {
		return backend.Fail(op, key, backend.ErrPrecondition, a)
	}
	return err
}

// signed puts the hash of the body into the signature, with TLS as well: there
// are servers that take a body which was cut on its way for the whole object,
// be it that of an attempt which was given up and repeated long ago.
func signed(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		hash := &v4.ComputePayloadSHA256{}
		_, err := stack.Finalize.Swap(hash.ID(), hash)
		return err
	})
}

// unsigned leaves the body out of the signature, where a cut one does no harm:
// hashing it first costs as much as sending it.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

// date is when the store answered, by its own clock; zero where it does not say.
func date(m middleware.Metadata) time.Time {
	if resp, ok := awsmiddleware.GetRawResponse(m).(*smithyhttp.Response); ok {
		if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			return t
		}
	}
	return time.Time{}
}

// answered is the time of an answer, which is that of the change to about a second.
func answered(m middleware.Metadata) time.Time {
	if t := date(m); !t.IsZero() {
		return t
	}
	return time.Now().Truncate(time.Second)
}

// cloned is a copy that is not nil.
func cloned(metadata map[string]string) map[string]string {
	return told(maps.Clone(metadata))
}

// told is metadata that the store has told, if only that there is none.
func told(metadata map[string]string) map[string]string {
	if metadata == nil {
		metadata = map[string]string{}
	}
	return metadata
}

func (b *bucket) Delete(ctx context.Context, key string, cond backend.Cond) error {
	if err := b.checkKey("delete", key); err != nil {
		return err
	}
	if cond.IfAbsent {
		return backend.Fail("delete", key, backend.ErrInvalid, errors.New("condition of absence"))
	}
	// Some servers answer to a condition on what is not there that it is gone.
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: b.full(key), IfMatch: ifMatch(cond.IfMatch)})
	err = b.fail(ctx, "delete", key, err)
	if cond.IfMatch == "" && errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}
