package s3

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keifs/keifs/backend"
)

// maxBatch is how many keys one DeleteObjects takes.
const maxBatch = 1000

// DeleteBatch deletes by one request. Keys that its XML cannot name are
// deleted one by one.
func (b *bucket) DeleteBatch(ctx context.Context, deletions []backend.Deletion) ([]error, error) {
	if len(deletions) > maxBatch {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, fmt.Errorf("%d keys, at most %d", len(deletions), maxBatch))
	}
	errs := make([]error, len(deletions))
	var objects []types.ObjectIdentifier
	for i, d := range deletions {
		key := d.Key
		if err := b.checkKey("deletebatch", key); err != nil {
			errs[i] = err
			continue
		}
		if strings.ContainsFunc(key, oddXML) {
			if err := b.Delete(ctx, key, backend.Cond{IfMatch: d.IfMatch}); err != nil {
				if ctx.Err() != nil {
					return nil, err
				}
				errs[i] = err
			}
			continue
		}
		objects = append(objects, types.ObjectIdentifier{Key: b.full(key), ETag: ifMatch(d.IfMatch)})
	}
	if len(objects) == 0 {
		return errs, nil
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &b.name, Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)},
	}, contentMD5)
	if err != nil {
		return nil, b.fail(ctx, "deletebatch", "", err)
	}
	for _, e := range out.Errors {
		key, code := aws.ToString(e.Key), aws.ToString(e.Code)
		kind := kindOfCode(code, aws.ToString(e.Message))
		if kind == backend.ErrNotExist {
			continue
		}
		if kind == nil {
			kind = backend.ErrIO
		}
		err := backend.Fail("deletebatch", strings.TrimPrefix(key, b.prefix), kind, fmt.Errorf("%s: %s", code, aws.ToString(e.Message)))
		known := false
		for i, d := range deletions {
			if b.prefix+d.Key == key {
				errs[i], known = err, true
			}
		}
		if !known {
			return nil, err // which of them it is, nobody knows
		}
	}
	return errs, nil
}

// contentMD5 adds the checksum that older stores insist on; the SDK adds a
// newer one by itself.
func contentMD5(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware)
}

// oddXML says that XML cannot carry a character, or that not every parser
// gives it back as it was.
func oddXML(c rune) bool { return c < ' ' || notXML(c) }
