package azure

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/keifs/keifs/backend"
)

const (
	maxBatch  = 1000 // of one call
	batchSize = 256  // of one request to Azure
)

// DeleteBatch is one request for each 256 objects.
func (c *container) DeleteBatch(ctx context.Context, objects []backend.Deletion) ([]error, error) {
	if len(objects) > maxBatch {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, fmt.Errorf("%d keys, at most %d", len(objects), maxBatch))
	}
	errs := make([]error, 0, len(objects))
	for some := range slices.Chunk(objects, batchSize) {
		more, err := c.deleteSome(ctx, some)
		if err != nil {
			return nil, err
		}
		errs = append(errs, more...)
	}
	return errs, nil
}

func (c *container) deleteSome(ctx context.Context, objects []backend.Deletion) ([]error, error) {
	req, w := c.Watch(ctx)
	defer w.Stop()
	errs := make([]error, len(objects))
	batch, err := c.client.NewBatchBuilder()
	if err != nil {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, err)
	}
	var sent []int // of objects
	for i, o := range objects {
		if errs[i] = c.checkKey("deletebatch", o.Key); errs[i] != nil {
			continue
		}
		err := batch.Delete(c.prefix+o.Key, &azcontainer.BatchDeleteOptions{
			DeleteOptions: blob.DeleteOptions{AccessConditions: conditions(backend.Cond{IfMatch: o.IfMatch})},
		})
		if err != nil {
			return nil, backend.Fail("deletebatch", o.Key, backend.ErrInvalid, err)
		}
		sent = append(sent, i)
	}
	if len(sent) == 0 {
		return errs, nil
	}
	out, err := c.client.SubmitBatch(req, batch, nil)
	if err != nil {
		return nil, c.fail(req, "deletebatch", "", err)
	}
	told := 0
	for _, r := range out.Responses {
		if r.ContentID == nil || *r.ContentID < 0 || *r.ContentID >= len(sent) {
			continue
		}
		told++
		i := sent[*r.ContentID]
		a, refused := errors.AsType[*azcore.ResponseError](r.Error)
		switch {
		case r.Error == nil:
		case !refused:
			errs[i] = backend.Fail("deletebatch", objects[i].Key, backend.ErrTransient, r.Error)
		case kindOf(a) != backend.ErrNotExist:
			errs[i] = c.orMissing(ctx, "deletebatch", objects[i].Key, backend.Fail("deletebatch", objects[i].Key, kindOf(a), words(a)))
		}
	}
	if told != len(sent) {
		return nil, backend.Fail("deletebatch", "", backend.ErrTransient, fmt.Errorf("%d answers for %d keys", told, len(sent)))
	}
	return errs, nil
}
